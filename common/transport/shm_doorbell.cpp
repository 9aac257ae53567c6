#include "common/transport/shm_doorbell.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>

namespace moesaic::transport {

void ring_doorbell(DoorbellPage& page, int event_fd) {
  if (page.state.load() == DoorbellPage::kAwake) return;
  switch (page.state.exchange(DoorbellPage::kAwake)) {
    case DoorbellPage::kAsleep:
      ::syscall(SYS_futex, &page.state, FUTEX_WAKE, 1, nullptr, nullptr, 0);
      break;
    case DoorbellPage::kArmed: {
      const std::uint64_t one = 1;
      // Fails only when the counter is full, and then it is readable.
      [[maybe_unused]] const auto written = ::write(event_fd, &one, sizeof one);
      break;
    }
    default:
      break;  // somebody else has rung
  }
}

Result<Doorbell> Doorbell::make() {
  Doorbell bell;
  MOESAIC_TRY(bell.memory_, make_shared_memory(kDoorbellBytes));
  MOESAIC_TRY(bell.mapping_, Mapping::map(bell.memory_, 0, kDoorbellBytes));
  bell.event_ = Descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!bell.event_) return fail(Errc::kIo, std::string("eventfd: ") + std::strerror(errno));
  return bell;
}

void Doorbell::wait(std::chrono::steady_clock::time_point deadline) {
  using namespace std::chrono;
  timespec until{};
  const bool forever = deadline == steady_clock::time_point::max();
  if (!forever) {
    const auto time = duration_cast<nanoseconds>(deadline.time_since_epoch()).count();
    if (time <= 0) return;
    until = {time / 1'000'000'000, time % 1'000'000'000};
  }
  // FUTEX_WAIT_BITSET: its time is absolute, on the monotonic clock, as that of steady_clock is.
  ::syscall(SYS_futex, &page().state, FUTEX_WAIT_BITSET, DoorbellPage::kAsleep,
            forever ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
}

void Doorbell::disarm() {
  page().state.store(DoorbellPage::kAwake);
  std::uint64_t rings = 0;
  [[maybe_unused]] const auto got = ::read(event_.get(), &rings, sizeof rings);
}

Result<PeerDoorbell> PeerDoorbell::map(const Descriptor& memory, Descriptor event) {
  MOESAIC_CHECK(check_shared_memory(memory, kDoorbellBytes));
  PeerDoorbell bell;
  MOESAIC_TRY(bell.mapping_, Mapping::map(memory, 0, kDoorbellBytes));
  // Ringing must not block, whatever was sent as an eventfd.
  if (::fcntl(event.get(), F_SETFL, O_NONBLOCK) != 0)
    return fail(Errc::kIo, std::string("doorbell: ") + std::strerror(errno));
  bell.event_ = std::move(event);
  return bell;
}

}  // namespace moesaic::transport
