#pragma once

#include <memory>
#include <span>
#include <vector>

#include "common/engine/model_loader.hpp"
#include "common/engine/sequence.hpp"
#include "common/tensor/bf16.hpp"

namespace moesaic {

/// Rows of a step: the layer's weights are read once for all of them.
inline constexpr std::size_t kStepRows = 2048;

/// What the matrices of one decoder layer were fed.
struct LayerInputs {
  std::vector<Bf16> attention;       ///< [rows, hidden]
  std::vector<Bf16> attended;        ///< [rows, heads * head_dim]
  std::vector<Bf16> feed_forward;    ///< [rows, hidden]
  std::vector<std::int32_t> chosen;  ///< [rows, experts_per_token]; empty: no experts
  std::vector<Bf16> output;          ///< of the last layer, what follows it: [rows, hidden]
};

/// Loads layer `layer` in bf16 and runs the sequences through it as the server does, a few at a
/// time.
/// @param model     a checkpoint opened in Compute::kBf16
/// @param sequences their tokens are the rows, in order; features are not looked at
/// @param hidden    [rows, hidden] what enters the layer; afterwards what leaves it
/// @errors those of loading and of the step; kInvalidArgument: numbers that are not finite
[[nodiscard]] Result<LayerInputs> run_layer(const OpenedModel& model, std::uint32_t layer,
                                            std::span<Sequence> sequences, std::span<float> hidden);

}  // namespace moesaic
