#include "services/all_in_one/calibration/layer_log.hpp"

#include <cstdio>

#include "common/model/weight_encoder.hpp"
#include "common/model/weight_list.hpp"
#include "services/all_in_one/calibration/calibration.hpp"

namespace moesaic {

LayerLog::LayerLog(const ModelConfig& config, Clock::time_point start)
    : layers_(config.layers), start_(start), last_(start) {
  for_each_weight(config, [&](const WeightId& id) {
    const auto component = component_of(id);
    if (component != Component::kAttention && component != Component::kDense &&
        component != Component::kShared && !is_expert(id.kind))
      return;
    const auto shape = weight_shape(config, id);
    const auto cols = static_cast<double>(shape.cols);
    auto& layer = layers_[id.layer];
    layer.weights += shape.elements();
    // Each row's errors go on to the columns that follow; inputs of its own want a factor.
    layer.products += static_cast<double>(shape.elements()) * cols;
    if (input_kind(config, id.kind) == id.kind) layer.products += cols * cols * cols;
  });
}

std::string LayerLog::done(std::uint32_t layer, Clock::time_point now) {
  const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  const double spent = seconds(now - start_);
  done_.weights += layers_[layer].weights;
  done_.products += layers_[layer].products;
  double left = 0;
  for (std::size_t i = layer + 1; i < layers_.size(); ++i) left += layers_[i].products;
  char text[128];
  std::snprintf(text, sizeof text, "layer %u of %zu: %.1f s, %.1f M weights/s, about %.1f min left",
                layer + 1, layers_.size(), seconds(now - last_),
                static_cast<double>(done_.weights) / spent * 1e-6,
                left / done_.products * spent / 60);
  last_ = now;
  return text;
}

}  // namespace moesaic
