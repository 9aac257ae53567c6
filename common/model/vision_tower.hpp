#pragma once

#include <memory>
#include <span>
#include <vector>

#include "common/base/thread_pool.hpp"
#include "common/kernels/compute.hpp"
#include "common/model/activations.hpp"
#include "common/model/config.hpp"
#include "common/model/positions.hpp"
#include "common/model/taps.hpp"
#include "common/model/weights.hpp"

namespace moesaic {

/// ViT and resampler: patches in, one decoder embedding per 28 x 28 pixels (and pair of frames)
/// out. An item's rows depend on that item alone. Owner: the vision encoder; one thread at a time
/// (scratch inside), kernels on the pool.
/// @source transformers' modeling_ernie4_5_vl_moe.py; numbers in tests/golden/tiny
class VisionTower {
 public:
  /// @param compute kF32 or kBf16: of attention and of all between the linears, whose own form is
  ///        that of their weights (w8r: int8 rows)
  VisionTower(const ModelConfig& config, std::shared_ptr<const VisionWeights> weights,
              Compute compute);

  /// @param patches [t * h * w, 588] f32, normalised, in 2x2-window order
  /// @param taps    null or the receiver of "<prefix>vit.*" and "<prefix>resampler.*"
  /// @param prefix  "image." or "video."
  /// @return [visual_rows(grid), hidden] f32; bf16-valued in Compute::kBf16
  /// @pre patches.size() == t * h * w * patch_values, grid as `layout_prompt` checks it
  std::vector<float> encode(std::span<const float> patches, const VisualGrid& grid,
                            ThreadPool& pool, TapSink* taps = nullptr,
                            const std::string& prefix = "image.");

 private:
  void vit(std::span<const float> patches, const VisualGrid& grid, ThreadPool& pool, TapSink* taps,
           const std::string& prefix);
  void block(const VitBlockWeights& weights, const VisualGrid& grid, ThreadPool& pool);
  std::vector<float> resample(const VisualGrid& grid, ThreadPool& pool, TapSink* taps,
                              const std::string& prefix);
  /// Linear, exact GELU, Linear, LayerNorm: one half of the resampler, into `out` (operand) and,
  /// for taps, `f32`.
  void merge_mlp(const Operand& in, const LinearWeights& fc1, const LinearWeights& fc2,
                 const NormWeights& norm, ThreadPool& pool);

  ModelConfig config_;
  std::shared_ptr<const VisionWeights> weights_;
  Compute compute_;
  FloatRows x_, wide_, cos_, sin_, merged_;
  OperandRows operand_, attended_, hidden_, rows_;
};

}  // namespace moesaic
