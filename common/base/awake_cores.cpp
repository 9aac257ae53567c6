#include "common/base/awake_cores.hpp"

#include <pthread.h>
#include <sched.h>

#include "common/base/pause.hpp"
#include "common/base/thread_pool.hpp"

namespace moesaic {
namespace {

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

constexpr std::int64_t kHoldNs = std::chrono::nanoseconds(AwakeCores::kHold).count();
constexpr int kPausesBetweenLooks = 64;

/// Makes the calling thread one of the idle class on one CPU.
bool become_idle(unsigned cpu) {
  const sched_param none{};
  return ::sched_setscheduler(0, SCHED_IDLE, &none) == 0 && bind_to_cpu(::pthread_self(), cpu);
}

}  // namespace

AwakeCores::AwakeCores() : cpus_(usable_cpu_ids()) {}

AwakeCores::~AwakeCores() {
  ended_ = true;
  holds_.fetch_add(1);
  holds_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void AwakeCores::hold() {
  const std::int64_t now = now_ns(), before = until_.exchange(now + kHoldNs);
  if (threads_.empty())
    for (const unsigned cpu : cpus_) threads_.emplace_back([this, cpu] { run(cpu); });
  if (before > now) return;  // they are awake
  holds_.fetch_add(1);
  holds_.notify_all();
}

void AwakeCores::run(unsigned cpu) {
  if (!become_idle(cpu)) return;
  for (std::uint32_t seen = 0; !ended_;) {
    while (now_ns() < until_ && !ended_)
      for (int i = 0; i < kPausesBetweenLooks; ++i) pause_cpu();
    // A hold that came since `seen` was read ends the wait at once.
    const auto holds = holds_.load();
    if (holds == seen && now_ns() >= until_) holds_.wait(seen);
    seen = holds;
  }
}

}  // namespace moesaic
