#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "common/model/config.hpp"

namespace moesaic {

/// Says how far a run over all decoder layers is that takes hours: one line a layer.
class LayerLog {
 public:
  using Clock = std::chrono::steady_clock;

  explicit LayerLog(const ModelConfig& config, Clock::time_point start = Clock::now());

  /// `layer 3 of 28: 61.0 s, 11.2 M weights/s, about 24.0 min left`; the rate is that of all layers
  /// so far, of this run. What is left counts by its products: a dense layer of the 28B model has a
  /// tenth of the weights of one with experts and takes half of the time.
  std::string done(std::uint32_t layer, Clock::time_point now = Clock::now());

 private:
  struct Layer {
    std::uint64_t weights = 0;
    double products = 0;
  };

  std::vector<Layer> layers_;
  Clock::time_point start_, last_;
  Layer done_;
};

}  // namespace moesaic
