#include "common/base/time_slices.hpp"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

namespace moesaic {
namespace {

/// The first version of the kernel's struct sched_attr.
struct SchedulerAttributes {
  std::uint32_t size, policy;
  std::uint64_t flags;
  std::int32_t nice;
  std::uint32_t priority;
  std::uint64_t runtime_ns, deadline_ns, period_ns;
};

}  // namespace

void ask_for_time_slices(std::chrono::microseconds length) {
  const SchedulerAttributes attributes{
      .size = sizeof attributes,
      .policy = SCHED_OTHER,
      .flags = 0,
      .nice = 0,
      .priority = 0,
      .runtime_ns = static_cast<std::uint64_t>(std::chrono::nanoseconds(length).count()),
      .deadline_ns = 0,
      .period_ns = 0};
  ::syscall(SYS_sched_setattr, 0, &attributes, 0);
}

}  // namespace moesaic
