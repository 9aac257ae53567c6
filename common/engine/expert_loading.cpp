#include "common/engine/expert_loading.hpp"

#include <algorithm>
#include <chrono>

#include "common/metrics/metrics.hpp"

namespace moesaic {
namespace {

Result<void> check(const ModelConfig& config, const cluster::PlacementTable& placement) {
  if (placement.layers == config.layers && placement.experts == config.experts) return {};
  return fail(Errc::kShapeMismatch, "placement " + std::to_string(placement.epoch) + " is for " +
                                        std::to_string(placement.layers) +
                                        " layers, the model has " + std::to_string(config.layers));
}

}  // namespace

bool places(const cluster::PlacementTable& placement, const std::string& shard, std::uint32_t layer,
            Modality modality, std::uint32_t expert) {
  const auto it = std::find(placement.shards.begin(), placement.shards.end(), shard);
  if (it == placement.shards.end()) return false;
  return (placement.at(layer, static_cast<std::size_t>(modality), expert) >>
              (it - placement.shards.begin()) &
          1U) != 0;
}

ExpertTablePtr no_experts(const OpenedModel& model) {
  ExpertWeights weights;
  weights.layers.resize(model.config.layers);
  for (std::size_t layer = 0; layer < weights.layers.size(); ++layer)
    for (std::size_t m = 0; m < kModalities; ++m)
      if (model.config.layer_is_moe[layer])
        weights.layers[layer][m].resize(model.config.experts[m]);
  return std::make_shared<const ExpertTable>(model.config, std::move(weights), model.compute);
}

Result<ExpertTablePtr> add_layer(const OpenedModel& model, const ExpertTablePtr& held,
                                 const cluster::PlacementTable& placement, const std::string& shard,
                                 std::uint32_t layer, const LoadProgress& progress) {
  MOESAIC_CHECK(check(model.config, placement));
  const ExpertFilter missing = [&](std::uint32_t l, Modality modality, std::uint32_t expert) {
    return l == layer && places(placement, shard, l, modality, expert) &&
           !held->holds(l, modality, expert);
  };
  const auto begun = std::chrono::steady_clock::now();
  MOESAIC_TRY(auto loaded, model.experts(missing, progress));
  auto weights = held->weights();
  for (std::size_t m = 0; m < kModalities; ++m) {
    auto& from = loaded.layers[layer][m];
    for (std::size_t e = 0; e < from.size(); ++e)
      if (from[e].gate_up.data != nullptr) weights.layers[layer][m][e] = std::move(from[e]);
  }
  metrics::histogram("moesaic_moe_expert_load_seconds")
      .observe(std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
  return std::make_shared<const ExpertTable>(model.config, std::move(weights), model.compute);
}

ExpertTablePtr without_others(const OpenedModel& model, const ExpertTablePtr& held,
                              const cluster::PlacementTable& placement, const std::string& shard) {
  auto weights = held->weights();
  for (std::uint32_t layer = 0; layer < weights.layers.size(); ++layer)
    for (const auto modality : {Modality::kText, Modality::kVision}) {
      auto& experts = weights.layers[layer][static_cast<std::size_t>(modality)];
      for (std::uint32_t e = 0; e < experts.size(); ++e)
        if (!places(placement, shard, layer, modality, e)) experts[e] = {};
    }
  return std::make_shared<const ExpertTable>(model.config, std::move(weights), model.compute);
}

}  // namespace moesaic
