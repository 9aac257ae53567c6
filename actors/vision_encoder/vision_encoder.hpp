#pragma once

#include <memory>

#include "actors/vision_encoder/visual_pipeline.hpp"

namespace moesaic {

struct VisionEncoderState {
  static constexpr const char* name = "vision-encoder";
  std::unique_ptr<VisualPipeline> pipeline;
  metrics::Histogram queue = metrics::histogram("moesaic_vision_queue_seconds");
};

/// The behaviour behind VisionEncoderActor. Spawn it detached: an image is long compute.
VisionEncoderActor::behavior_type vision_encoder(
    VisionEncoderActor::stateful_pointer<VisionEncoderState> self, VisualPipelineParts parts);

}  // namespace moesaic
