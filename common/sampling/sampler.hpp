#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/sampling/sampling_params.hpp"

namespace moesaic {

/// Uniform in [0, 1): splitmix64 over seed, choice index and the position of the drawn token, so
/// that a retry draws the same.
float draw_uniform(std::uint64_t seed, std::uint32_t choice, std::uint64_t position);

/// Draws tokens from logits, the same bits on every machine. One per thread (scratch inside).
class Sampler {
 public:
  /// Greedy: the largest logit, lowest id. Else softmax of logits / temperature in f32
  /// (exp_portable), filters in the order top_k, top_p, min_p (ties to the lower id; at least one
  /// token stays), stripe-64 sums over ascending id.
  /// @param logits   [ids that may be drawn]; > 0 of them
  /// @param position index of the drawn token in its sequence
  /// @return null: the largest logit is not finite, because weights or activations overflowed
  std::optional<std::int32_t> draw(std::span<const float> logits, const SamplingParams& params,
                                   std::uint64_t position);

 private:
  void keep_first(const SamplingParams& params);

  std::vector<float> p_;
  std::vector<std::uint32_t> order_;
};

}  // namespace moesaic
