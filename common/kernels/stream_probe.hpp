#pragma once

#include <cstddef>
#include <span>

#include "common/base/thread_pool.hpp"
#include "common/kernels/packed_matrix.hpp"

namespace moesaic {

/// How a product with one row reads its weights.
struct StreamChoice {
  std::size_t panels = 0;  ///< side by side
  std::size_t ahead = 0;   ///< bytes prefetched ahead
  double gbs = 0;          ///< 1e9 bytes a second with it
};

/// Finds out how this machine reads weights fastest, {1, 2, 4} panels side by side x {1088, 2176,
/// 4352, 6528} bytes ahead, and sets it for the process. No bit depends on it. Takes some 20 ms.
/// @param matrices of integer formats, in memory already; read in turn, so that they come from
/// memory and not from a cache. Less than 64 MiB of them (a small model): nothing is measured or
/// changed, and `gbs` is 0.
StreamChoice tune_streams(std::span<const PackedMatrix> matrices, ThreadPool& pool);

}  // namespace moesaic
