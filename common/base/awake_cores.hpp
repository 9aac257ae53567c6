#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace moesaic {

/// Keeps the cores of this process from halting while somebody on this machine works for it and
/// will soon wake it. On a virtual machine a halted core is woken by way of the host, which costs
/// 0.1 to 0.2 ms, as much as a tenth of a decoded layer, several times a layer. The threads behind
/// this are of the scheduler's idle class: they run only where no other thread of the machine wants
/// to, and sleep on a futex when nobody asks for them. One thread at a time.
class AwakeCores {
 public:
  /// Of the CPUs that the calling thread may use.
  AwakeCores();
  ~AwakeCores();
  AwakeCores(const AwakeCores&) = delete;
  AwakeCores& operator=(const AwakeCores&) = delete;

  /// Until `kHold` from now. Starts a thread for each CPU at the first call; where the system does
  /// not allow the idle class, nothing happens.
  void hold();
  static constexpr std::chrono::milliseconds kHold{5};

 private:
  void run(unsigned cpu);

  const std::vector<unsigned> cpus_;
  std::atomic<std::int64_t> until_{0};  ///< of the steady clock, ns
  std::atomic<std::uint32_t> holds_{0};
  std::atomic<bool> ended_{false};
  std::vector<std::thread> threads_;
};

}  // namespace moesaic
