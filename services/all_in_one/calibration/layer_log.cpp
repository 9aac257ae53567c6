#include "services/all_in_one/calibration/layer_log.hpp"

#include <cstdio>
#include <numeric>

#include "common/model/weight_encoder.hpp"
#include "common/model/weight_list.hpp"

namespace moesaic {

LayerLog::LayerLog(const ModelConfig& config, Clock::time_point start)
    : weights_(config.layers), start_(start), last_(start) {
  for_each_weight(config, [&](const WeightId& id) {
    const auto component = component_of(id);
    if (component == Component::kAttention || component == Component::kDense ||
        component == Component::kShared || is_expert(id.kind))
      weights_[id.layer] += weight_shape(config, id).elements();
  });
}

std::string LayerLog::done(std::uint32_t layer, Clock::time_point now) {
  const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  done_ += weights_[layer];
  const double rate = static_cast<double>(done_) / seconds(now - start_);
  const auto left = std::accumulate(weights_.begin() + layer + 1, weights_.end(), std::uint64_t{0});
  char text[128];
  std::snprintf(text, sizeof text, "layer %u of %zu: %.1f s, %.1f M weights/s, about %.1f min left",
                layer + 1, weights_.size(), seconds(now - last_), rate * 1e-6,
                static_cast<double>(left) / rate / 60);
  last_ = now;
  return text;
}

}  // namespace moesaic
