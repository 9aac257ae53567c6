#pragma once

#include <cstddef>

#include "common/base/thread_pool.hpp"

namespace moesaic {

/// How a product with one row reads its weights.
struct StreamChoice {
  std::size_t panels = 0;  ///< side by side
  std::size_t ahead = 0;   ///< bytes prefetched ahead
  double gbs = 0;          ///< 1e9 bytes a second with it
};

/// Finds out how this machine reads weights fastest, {1, 2, 4} panels side by side x {1088, 2176,
/// 4352, 6528} bytes ahead, over memory of its own that no cache holds, and sets it for the
/// process. No bit depends on it. Takes about 0.1 s and, for that long, 192 MiB.
StreamChoice tune_streams(ThreadPool& pool);

}  // namespace moesaic
