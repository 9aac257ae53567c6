#include "common/model/weights.hpp"

#include <atomic>
#include <mutex>
#include <new>
#include <optional>

#include "common/base/thread_pool.hpp"
#include "common/model/weight_loader.hpp"

namespace moesaic {
namespace {

using enum WeightKind;

std::string memory_text(const char* what) {
  return std::string(what) + ": not enough memory for the weights";
}

}  // namespace

Result<DecoderWeights> load_decoder(const ModelConfig& config, const WeightSource& source,
                                    Compute compute, const LoadProgress& progress) try {
  const PackingEncoder encoder(compute);
  WeightLoader loader(config, source, encoder, progress);
  DecoderWeights weights;
  MOESAIC_TRY(weights.embedding, loader.matrix({kEmbedding}));
  loader.report("embedding");
  weights.lm_head = weights.embedding;
  if (!config.tie_word_embeddings) {
    MOESAIC_TRY(weights.lm_head, loader.matrix({kLmHead}));
    loader.report("output matrix");
  }
  MOESAIC_TRY(weights.final_norm, loader.values({kFinalNorm}));
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    MOESAIC_TRY(auto loaded, loader.decoder_layer(layer));
    weights.layers.push_back(std::move(loaded));
    loader.report("decoder layer " + std::to_string(layer + 1) + " of " +
                  std::to_string(config.layers));
  }
  return weights;
} catch (const std::bad_alloc&) {
  return fail(Errc::kTooLarge, memory_text("decoder"));
}

Result<RouterWeights> load_routers(const ModelConfig& config, const WeightSource& source,
                                   Compute compute) try {
  const PackingEncoder encoder(Compute::kF32);
  const LoadProgress silent;
  const WeightLoader loader(config, source, encoder, silent);
  RouterWeights weights;
  weights.layers.resize(config.layers);
  if (compute == Compute::kInt)
    weights.expert_format.resize(config.layers, {WeightFormat::kBf16, WeightFormat::kBf16});
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    if (!config.layer_is_moe[layer]) continue;
    for (const auto modality : {Modality::kText, Modality::kVision}) {
      const auto m = static_cast<std::size_t>(modality);
      MOESAIC_TRY(weights.layers[layer][m], loader.router(layer, modality));
      if (compute == Compute::kInt)
        weights.expert_format[layer][m] =
            source.packed_format({kExpertGate, layer, modality}).value_or(WeightFormat::kBf16);
    }
  }
  return weights;
} catch (const std::bad_alloc&) {
  return fail(Errc::kTooLarge, memory_text("routers"));
}

Result<ExpertWeights> load_experts(const ModelConfig& config, const WeightSource& source,
                                   Compute compute, const ExpertFilter& held,
                                   const LoadProgress& progress) try {
  ExpertWeights weights;
  weights.layers.resize(config.layers);
  std::vector<WeightId> wanted;
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    if (!config.layer_is_moe[layer]) continue;
    for (const auto modality : {Modality::kText, Modality::kVision}) {
      const auto m = static_cast<std::size_t>(modality);
      weights.layers[layer][m].resize(config.experts[m]);
      for (std::uint32_t expert = 0; expert < config.experts[m]; ++expert) {
        if (held(layer, modality, expert)) wanted.push_back({kExpertGate, layer, modality, expert});
      }
    }
  }

  const PackingEncoder encoder(compute);
  WeightLoader loader(config, source, encoder, progress);
  std::mutex mutex;
  std::optional<Error> error;
  std::atomic<std::size_t> done = 0;
  ThreadPool pool(0);
  pool.parallel_for(wanted.size(), [&](std::size_t task) {
    const auto& id = wanted[task];
    Result<FfnWeights> loaded;
    try {
      loaded = loader.expert(id.layer, id.modality, id.expert);
    } catch (const std::bad_alloc&) {
      loaded = fail(Errc::kTooLarge, memory_text("experts"));
    }
    if (loaded) {
      weights.layers[id.layer][static_cast<std::size_t>(id.modality)][id.expert] =
          std::move(*loaded);
      loader.report("expert " + std::to_string(++done) + " of " + std::to_string(wanted.size()));
      return;
    }
    const std::lock_guard lock(mutex);
    if (!error) error = std::move(loaded).error();
  });
  if (error) return tl::make_unexpected(std::move(*error));
  return weights;
} catch (const std::bad_alloc&) {
  return fail(Errc::kTooLarge, memory_text("experts"));
}

Result<VisionWeights> load_vision(const ModelConfig& config, const WeightSource& source,
                                  Compute compute, const LoadProgress& progress) try {
  const PackingEncoder encoder(compute);
  return WeightLoader(config, source, encoder, progress).vision();
} catch (const std::bad_alloc&) {
  return fail(Errc::kTooLarge, memory_text("vision tower"));
}

}  // namespace moesaic
