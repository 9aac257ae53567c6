#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/model/config.hpp"
#include "common/model/pack_policy.hpp"

namespace moesaic {

/// One component of a model in the form in which it would be held.
struct PlannedPart {
  std::string name;     ///< as in policy files, or "values": gates, norms and biases, f32
  std::string formats;  ///< "w4", or "ccq2, w4" if layers differ
  std::uint64_t bytes = 0;
  std::uint64_t token_bytes = 0;  ///< read for a text token, batch 1
};

/// Sizes of all weights, from the configuration alone.
struct WeightPlan {
  std::vector<PlannedPart> parts;  ///< those that the model has, in the order of Component

  std::uint64_t bytes() const;
  /// Weights read for a text token, batch 1.
  std::uint64_t token_bytes() const;
  /// 0: no such part
  std::uint64_t bytes_of(const std::string& part) const;
  /// Of the parts that a decoder holds itself: without experts and vision tower.
  std::uint64_t decoder_bytes() const;
};

/// What a pack of that policy holds, byte for byte, without the gaps between tensors.
WeightPlan plan_weights(const ModelConfig& config, const PackPolicy& policy);

}  // namespace moesaic
