#pragma once

#include <cstddef>

#include "common/base/thread_pool.hpp"
#include "common/kernels/attention.hpp"
#include "common/kernels/cpu/attention_vision_tiles.hpp"

namespace moesaic::attention_detail {

/// `attention_vision` of a bf16 result on tiles, the bits of the other portable levels.
/// @param qkv [patches][3][heads][head_dim] f32
/// @pre level kAmx is available, out.compute is kBf16, head_dim <= kMostTileDim
void attention_vision_amx(const float* qkv, const RopeAngles& angles, std::size_t patches,
                          std::size_t heads, std::size_t head_dim, const OperandOut& out,
                          ThreadPool& pool);

}  // namespace moesaic::attention_detail
