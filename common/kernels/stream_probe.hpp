#pragma once

#include <cstddef>

namespace moesaic {

/// How products read their weights.
struct StreamChoice {
  std::size_t panels = 0;  ///< side by side
  std::size_t ahead = 0;   ///< bytes prefetched ahead; 0: the hardware does it
  bool into_l2 = false;    ///< prefetched into L2 and no nearer
  double gbs = 0;          ///< 1e9 bytes a second with it
};
struct StreamChoices {
  StreamChoice row;   ///< of products with one row
  StreamChoice rows;  ///< with several; the rate is that of two
};

/// Finds out how a core of this machine reads weights fastest, {1, 2, 4} panels side by side and
/// several distances of prefetching, over memory of its own that no cache holds, and sets it for
/// the process. One thread: where several share what memory gives, it shows less. No bit depends on
/// it. Takes about 0.1 s and, for that long, 192 MiB.
StreamChoices tune_streams();

}  // namespace moesaic
