#include "common/model/vision_tower.hpp"

#include <algorithm>
#include <cstring>

#include "common/kernels/attention.hpp"
#include "common/kernels/elementwise.hpp"
#include "common/kernels/linear.hpp"
#include "common/kernels/norm.hpp"
#include "common/kernels/rope.hpp"

namespace moesaic {
namespace {

using Shape = std::array<std::size_t, 1>;

/// Of one pass: as many as the largest picture has, so that a video needs no more memory.
constexpr std::size_t kMostPatches = 4'842'768 / (14 * 14);

/// The two destinations of a row kernel: bf16 operands get the rounded values, f32 ones the others.
float* f32_row(const OperandOut& out, std::size_t row) {
  return out.compute == Compute::kF32 ? out.f32(row) : nullptr;
}
Bf16* bf16_row(const OperandOut& out, std::size_t row) {
  return out.compute == Compute::kBf16 ? out.bf16(row) : nullptr;
}

void store_row(const float* x, std::size_t n, const OperandOut& out, std::size_t row) {
  if (out.compute == Compute::kF32) {
    std::memcpy(out.f32(row), x, n * sizeof(float));
  } else {
    to_bf16(x, n, out.bf16(row));
  }
}

void apply(const LinearWeights& weights, const Operand& x, FloatRows& y, ThreadPool& pool) {
  const auto cols = weights.weight.rows;
  linear(weights.weight, x, y.resize(x.rows, cols), cols, weights.bias.data(), pool);
}

void normalise(const NormWeights& weights, float eps, const FloatRows& x, const OperandOut& out,
               ThreadPool& pool) {
  for_rows(pool, x.rows(), [&](std::size_t r) {
    layer_norm(x.row(r), weights.weight.data(), weights.bias.data(), eps, x.cols(),
               out.compute == Compute::kBf16, f32_row(out, r), bf16_row(out, r));
  });
}

}  // namespace

VisionTower::VisionTower(const ModelConfig& config, std::shared_ptr<const VisionWeights> weights,
                         Compute compute)
    : config_(config), weights_(std::move(weights)), compute_(compute) {}

std::vector<float> VisionTower::encode(std::span<const float> patches, const VisualGrid& grid,
                                       ThreadPool& pool, TapSink* taps, const std::string& prefix) {
  const auto frames = static_cast<std::size_t>(grid[0]);
  const auto per_frame = static_cast<std::size_t>(grid[1]) * static_cast<std::size_t>(grid[2]);
  const std::size_t pair = config_.vision.temporal_merge;
  const std::size_t piece = std::max(pair, kMostPatches / per_frame / pair * pair);
  if (taps != nullptr || frames <= piece) {
    vit(patches, grid, pool, taps, prefix);
    return resample(grid, pool, taps, prefix);
  }
  // Frames know of others only within a pair: pieces of a video give the bits of the whole.
  std::vector<float> features;
  const std::size_t values = per_frame * config_.vision.patch_values();
  for (std::size_t first = 0; first < frames; first += piece) {
    const auto count = std::min(piece, frames - first);
    const VisualGrid part{static_cast<std::int32_t>(count), grid[1], grid[2]};
    vit(patches.subspan(first * values, count * values), part, pool, nullptr, prefix);
    const auto of_part = resample(part, pool, nullptr, prefix);
    features.insert(features.end(), of_part.begin(), of_part.end());
  }
  return features;
}

void VisionTower::vit(std::span<const float> patches, const VisualGrid& grid, ThreadPool& pool,
                      TapSink* taps, const std::string& prefix) {
  const auto& vision = config_.vision;
  const std::size_t values = vision.patch_values();
  const std::size_t rows = patches.size() / values;
  const std::size_t hidden = vision.hidden;

  const auto in = operand_.resize(compute_, rows, values);
  for_rows(pool, rows,
           [&](std::size_t r) { store_row(patches.data() + r * values, values, in, r); });
  linear(weights_->patch_embed, in.view(), x_.resize(rows, hidden), hidden, nullptr, pool);
  if (taps != nullptr) taps->put(prefix + "vit.patch_embed", x_.span(), Shape{hidden});

  // Angles restart with every frame; patches come window by window (spatial_merge x spatial_merge).
  const VisionRope rope(vision.head_dim(), vision.rope_theta);
  const std::size_t half = vision.head_dim() / 2;
  const std::size_t per_frame =
      static_cast<std::size_t>(grid[1]) * static_cast<std::size_t>(grid[2]);
  const std::size_t merge = vision.spatial_merge;
  const std::size_t windows_across = static_cast<std::size_t>(grid[2]) / merge;
  cos_.resize(per_frame, half);
  sin_.resize(per_frame, half);
  for (std::size_t r = 0; r < per_frame; ++r) {
    const std::size_t window = r / (merge * merge);
    const std::size_t sub = r % (merge * merge);
    const auto row = static_cast<std::int32_t>(merge * (window / windows_across) + sub / merge);
    const auto col = static_cast<std::int32_t>(merge * (window % windows_across) + sub % merge);
    rope.table(row, col, cos_.row(r), sin_.row(r));
  }
  for (std::size_t b = 0; b < weights_->blocks.size(); ++b) {
    block(weights_->blocks[b], grid, pool);
    if (taps != nullptr && taps->fine())
      taps->put(prefix + "vit.block." + std::to_string(b), x_.span(), Shape{hidden});
  }
  // The final norm's rows are the resampler's operand; taps see them as f32.
  normalise(weights_->final_norm, vision.layer_norm_eps, x_,
            operand_.resize(compute_, rows, hidden), pool);
  if (taps != nullptr) {
    const auto& norm = weights_->final_norm;
    for_rows(pool, rows, [&](std::size_t r) {
      layer_norm(x_.row(r), norm.weight.data(), norm.bias.data(), vision.layer_norm_eps, hidden,
                 compute_ == Compute::kBf16, x_.row(r), nullptr);
    });
    taps->put(prefix + "vit.out", x_.span(), Shape{hidden});
  }
}

void VisionTower::block(const VitBlockWeights& weights, const VisualGrid& grid, ThreadPool& pool) {
  const auto& vision = config_.vision;
  const std::size_t rows = x_.rows();
  const std::size_t hidden = vision.hidden;
  const std::size_t heads = vision.heads;
  const std::size_t head_dim = vision.head_dim();
  const std::size_t per_frame = rows / static_cast<std::size_t>(grid[0]);

  normalise(weights.norm1, vision.layer_norm_eps, x_, operand_.resize(compute_, rows, hidden),
            pool);
  apply(weights.qkv, operand_.view(), wide_, pool);
  const auto attended = attended_.resize(compute_, rows, hidden);
  for (std::size_t frame = 0; frame < rows; frame += per_frame) {
    auto out = attended;
    out.rows = per_frame;
    out.data =
        static_cast<std::byte*>(attended.data) + frame * attended.stride * operand_bytes(compute_);
    attention_vision(wide_.row(frame), {cos_.data(), sin_.data()}, per_frame, heads, head_dim, out,
                     pool);
  }
  linear_add(weights.proj.weight, attended.view(), x_.data(), hidden, weights.proj.bias.data(),
             pool);

  normalise(weights.norm2, vision.layer_norm_eps, x_, operand_.resize(compute_, rows, hidden),
            pool);
  const auto activated = hidden_.resize(compute_, rows, vision.intermediate);
  linear_activated(weights.fc1.weight, operand_.view(), weights.fc1.bias.data(),
                   Activation::kQuickGelu, activated, pool);
  linear_add(weights.fc2.weight, activated.view(), x_.data(), hidden, weights.fc2.bias.data(),
             pool);
}

void VisionTower::merge_mlp(const Operand& in, const LinearWeights& fc1, const LinearWeights& fc2,
                            const NormWeights& norm, ThreadPool& pool) {
  const auto activated = hidden_.resize(compute_, in.rows, fc1.weight.rows);
  linear_activated(fc1.weight, in, fc1.bias.data(), Activation::kGeluErf, activated, pool);
  apply(fc2, activated.view(), merged_, pool);
  for_rows(pool, in.rows, [&](std::size_t r) {
    layer_norm(merged_.row(r), norm.weight.data(), norm.bias.data(), config_.vision.layer_norm_eps,
               merged_.cols(), compute_ == Compute::kBf16, merged_.row(r), nullptr);
  });
}

std::vector<float> VisionTower::resample(const VisualGrid& grid, ThreadPool& pool, TapSink* taps,
                                         const std::string& prefix) {
  const auto& vision = config_.vision;
  // Rows come in window order: spatial_merge^2 consecutive rows are one row of the merged width, in
  // place.
  const std::size_t window = std::size_t{vision.spatial_merge} * vision.spatial_merge;
  Operand spatial = operand_.view();
  spatial.rows /= window;
  spatial.cols *= window;
  spatial.stride *= window;
  merge_mlp(spatial, weights_->spatial_fc1, weights_->spatial_fc2, weights_->spatial_norm, pool);
  const std::size_t width = merged_.cols();
  if (taps != nullptr) taps->put(prefix + "resampler.spatial", merged_.span(), Shape{width});

  // Pairs of frames side by side; an image is paired with itself.
  const std::size_t per_frame = spatial.rows / static_cast<std::size_t>(grid[0]);
  const std::size_t pair = vision.temporal_merge;
  const std::size_t rows = visual_rows(vision, grid);
  const auto pairs = rows_.resize(compute_, rows, pair * width);
  for_rows(pool, rows, [&](std::size_t r) {
    for (std::size_t i = 0; i < pair; ++i) {
      const std::size_t frame = grid[0] == 1 ? 0 : r / per_frame * pair + i;
      const float* from = merged_.row(frame * per_frame + r % per_frame);
      auto part = pairs;
      part.data = static_cast<std::byte*>(pairs.data) + i * width * operand_bytes(compute_);
      store_row(from, width, part, r);
    }
  });
  merge_mlp(pairs.view(), weights_->temporal_fc1, weights_->temporal_fc2, weights_->temporal_norm,
            pool);
  if (taps != nullptr) taps->put(prefix + "resampler.temporal", merged_.span(), Shape{width});

  const auto last = operand_.resize(compute_, rows, width);
  for_rows(pool, rows, [&](std::size_t r) { store_row(merged_.row(r), width, last, r); });
  apply(weights_->mlp, last.view(), x_, pool);
  if (taps != nullptr) taps->put(prefix + "resampler.mlp", x_.span(), Shape{x_.cols()});
  std::vector<float> features(rows * x_.cols());
  for_rows(pool, rows, [&](std::size_t r) {
    rms_norm(x_.row(r), weights_->after_norm.data(), config_.rms_norm_eps, x_.cols(),
             compute_ == Compute::kBf16, features.data() + r * x_.cols(), nullptr);
  });
  if (taps != nullptr) taps->put(prefix + "resampler.out", features, Shape{x_.cols()});
  return features;
}

}  // namespace moesaic
