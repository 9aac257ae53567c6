#pragma once

#include <cstddef>

namespace moesaic {

/// How the attention of single rows fetches int8 pages.
struct PageStreamChoice {
  std::size_t streams = 0;  ///< parts of a page side by side
  std::size_t ahead = 0;    ///< bytes between what is fetched and what is read
  bool into_l2 = false;     ///< fetched into L2 and no nearer
  double gbs = 0;           ///< 1e9 bytes a second with it
};

/// Finds out how a core of this machine reads int8 pages of the KV cache fastest, into L1 in one
/// stream 4096 or 8192 bytes ahead or in 2, 3 or 4 a page ahead, or into L2 in 1 or 2 a page ahead,
/// over memory of its own that no cache holds, and sets it for the process. No bit depends on it.
/// Takes about 0.1 s and, for that long, 192 MiB.
PageStreamChoice tune_page_streams();

}  // namespace moesaic
