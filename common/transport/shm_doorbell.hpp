#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "common/base/result.hpp"
#include "common/transport/shm_memory.hpp"

namespace moesaic::transport {

/// The shared page of one process: what its peers ring, and a pulse that shows that it runs.
struct DoorbellPage {
  enum State : std::uint32_t { kAwake = 0, kAsleep = 1, kArmed = 2 };
  alignas(64) std::atomic<std::uint32_t> state;
  alignas(64) std::atomic<std::uint32_t> pulse;
};
inline constexpr std::size_t kDoorbellBytes = 4096;

/// Wakes whoever sleeps behind a page; costs a system call only if somebody does. Order: publish
/// the news with a sequentially consistent store, then ring. Any thread.
void ring_doorbell(DoorbellPage& page, int event_fd);

/// A doorbell of our own: one thread sleeps, anyone rings.
class Doorbell {
 public:
  /// @errors kIo
  [[nodiscard]] static Result<Doorbell> make();

  const Descriptor& memory() const { return memory_; }
  const Descriptor& event() const { return event_; }
  DoorbellPage& page() const { return *reinterpret_cast<DoorbellPage*>(mapping_.data()); }
  void ring() const { ring_doorbell(page(), event_.get()); }
  /// Wakes who is in `sleep`, for no reason of ours; leaves one who is armed alone.
  void nudge() const {
    if (page().state.load() == DoorbellPage::kAsleep) ring();
  }

  /// Sleeps until rung or `deadline()`, unless `ready()`. Both are asked after rings reach us.
  template <class Ready, class Deadline>
  void sleep(Ready ready, Deadline deadline) {
    page().state.store(DoorbellPage::kAsleep);
    if (!ready()) wait(deadline());
    // Who rang has done this already.
    if (page().state.load() != DoorbellPage::kAwake) page().state.store(DoorbellPage::kAwake);
  }
  /// From now on rings make `event` readable. @return false: `ready()` already, not armed
  template <class Ready>
  bool arm(Ready ready) {
    page().state.store(DoorbellPage::kArmed);
    if (!ready()) return true;
    disarm();
    return false;
  }
  void disarm();

 private:
  void wait(std::chrono::steady_clock::time_point deadline);

  Descriptor memory_;
  Descriptor event_;
  Mapping mapping_;
};

/// A peer's doorbell.
class PeerDoorbell {
 public:
  /// @errors kCorrupt: not a doorbell; kIo
  [[nodiscard]] static Result<PeerDoorbell> map(const Descriptor& memory, Descriptor event);
  void ring() const { ring_doorbell(page(), event_.get()); }
  std::uint32_t pulse() const { return page().pulse.load(std::memory_order_relaxed); }

 private:
  DoorbellPage& page() const { return *reinterpret_cast<DoorbellPage*>(mapping_.data()); }

  Descriptor event_;
  Mapping mapping_;
};

}  // namespace moesaic::transport
