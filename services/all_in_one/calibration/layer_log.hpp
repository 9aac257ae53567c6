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

  /// `layer 3 of 28: 61 s, 11.2 M weights/s, about 24 min left`; the rate is that of all layers so
  /// far, of this run.
  std::string done(std::uint32_t layer, Clock::time_point now = Clock::now());

 private:
  std::vector<std::uint64_t> weights_;  ///< of each layer
  Clock::time_point start_, last_;
  std::uint64_t done_ = 0;
};

}  // namespace moesaic
