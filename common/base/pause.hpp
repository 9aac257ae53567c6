#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace moesaic {

/// In a loop that waits: leaves the core to its other hyper-thread for a moment.
inline void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace moesaic
