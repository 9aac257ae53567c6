#include "services/all_in_one/calibration/memory.hpp"

#include <algorithm>
#include <cstdio>

#include "common/model/weight_list.hpp"
#include "services/all_in_one/calibration/layer_pass.hpp"

namespace moesaic {
namespace {

constexpr std::uint64_t kBf16Bytes = 2;
constexpr std::uint64_t kF32Bytes = 4;
constexpr std::uint64_t kF64Bytes = 8;
/// Code, stacks, tokenizer, small things.
constexpr std::uint64_t kProgram = std::uint64_t{256} << 20;
/// A picture's rows in the tower, at most 16,384 patches: f32 of residual, QKV, hidden, twice.
constexpr std::uint64_t kPatches = 16384;

}  // namespace

std::uint64_t CalibrationMemory::peak() const {
  return kProgram + rows + std::max({vision, layer, matrix});
}

CalibrationMemory calibration_memory(const ModelConfig& config, std::uint64_t tokens,
                                     std::uint64_t longest, bool pictures) {
  CalibrationMemory memory;
  const std::uint64_t hidden = config.hidden;
  const std::uint64_t heads = std::uint64_t{config.heads} * config.head_dim;
  memory.rows = tokens * (hidden * kF32Bytes + (3 * hidden + heads) * kBf16Bytes +
                          config.experts_per_token * (kF32Bytes + kF32Bytes));

  std::vector<std::uint64_t> weights(config.layers);
  std::uint64_t tower = 0;
  for_each_weight(config, [&](const WeightId& id) {
    const auto shape = weight_shape(config, id);
    if (component_of(id) == Component::kVision && id.kind >= WeightKind::kPatchEmbed) {
      tower += shape.elements() * kBf16Bytes;
      return;
    }
    if (id.kind == WeightKind::kEmbedding || id.kind == WeightKind::kLmHead ||
        id.kind == WeightKind::kFinalNorm)
      return;
    weights[id.layer] += shape.elements() * kBf16Bytes;
    // Moments and their f64 form while they are factored, the factor, a block of rows; the weights
    // themselves in two formats.
    const std::uint64_t square = std::uint64_t{shape.cols} * shape.cols;
    const auto factoring = square * (kF32Bytes + kF64Bytes + kF32Bytes);
    const auto layers_moment = hidden * hidden * kF32Bytes;
    if (shape.rows > 1 && !is_router(id.kind))
      memory.matrix =
          std::max(memory.matrix, factoring + layers_moment + 2 * shape.elements() * kBf16Bytes +
                                      kStepRows * shape.cols * kBf16Bytes);
  });
  if (pictures)
    memory.vision = tower + 2 * kPatches * kF32Bytes * (std::uint64_t{config.vision.hidden} * 8);
  const auto step = std::min<std::uint64_t>(tokens, kStepRows);
  const auto width = std::max<std::uint64_t>(
      {config.intermediate, config.shared_width,
       config.experts_per_token *
           std::uint64_t{std::max(config.expert_width[0], config.expert_width[1])}});
  memory.layer =
      *std::max_element(weights.begin(), weights.end()) +
      2 * std::max(longest, step) * config.kv_heads * config.head_dim * kBf16Bytes +
      step * kF32Bytes * (2 * width + (2 * config.experts_per_token + 8) * hidden + 2 * heads);
  return memory;
}

std::string to_text(const CalibrationMemory& memory) {
  char text[256];
  const auto gb = [](std::uint64_t bytes) { return static_cast<double>(bytes) * 1e-9; };
  std::snprintf(
      text, sizeof text,
      "%.2f GB at most: %.2f GB of rows, and one of %.2f GB of vision tower, %.2f GB of a "
      "layer, %.2f GB of a matrix",
      gb(memory.peak()), gb(memory.rows), gb(memory.vision), gb(memory.layer), gb(memory.matrix));
  return text;
}

}  // namespace moesaic
