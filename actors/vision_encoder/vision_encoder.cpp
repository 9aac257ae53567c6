#include "actors/vision_encoder/vision_encoder.hpp"

#include "actors/contracts/errors.hpp"

namespace moesaic {

VisionEncoderActor::behavior_type vision_encoder(
    VisionEncoderActor::stateful_pointer<VisionEncoderState> self, VisualPipelineParts parts) {
  self->state.pipeline = std::make_unique<VisualPipeline>(std::move(parts));
  return {
      [self](encode_atom, const VisualItemPtr& item) -> caf::result<VisualFeaturesPtr> {
        const auto waited = std::chrono::steady_clock::now() - item->since;
        self->state.queue.observe(std::chrono::duration<double>(waited).count());
        try {
          auto features = self->state.pipeline->encode(*item);
          if (!features) return to_caf(features.error());
          return *features;
        } catch (const std::bad_alloc&) {
          return to_caf({Errc::kOverloaded, "out of memory while encoding an image"});
        }
      },
      [self](status_atom) -> VisionStatusPtr {
        return std::make_shared<const VisionStatus>(self->state.pipeline->status());
      },
  };
}

}  // namespace moesaic
