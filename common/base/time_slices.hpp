#pragma once

#include <chrono>

namespace moesaic {

/// Asks the scheduler to run the calling thread for about so long at a time, 0.1 to 100 ms: its
/// share of the CPU stays the same, but with short slices it gets it sooner after waking, with long
/// ones it is put off less often. Systems that cannot do it (Linux before 6.12) refuse, which is as
/// well.
void ask_for_time_slices(std::chrono::microseconds length);

}  // namespace moesaic
