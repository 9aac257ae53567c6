#include "common/base/thread_pool.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "common/base/pause.hpp"
#include "common/base/time_slices.hpp"

namespace moesaic {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kSpin = std::chrono::microseconds(50);
/// Of workers beside those of other processes: a woken one should not wait for the others' turns.
constexpr auto kShortSlices = std::chrono::microseconds(100);

/// Waits until `value` differs from `old`: first spinning (while that is allowed), then asleep.
std::uint32_t wait_for_change(const std::atomic<std::uint32_t>& value, std::uint32_t old,
                              const std::atomic<bool>& spin) {
  if (spin.load(std::memory_order_relaxed)) {
    const auto until = Clock::now() + kSpin;
    do {
      for (int i = 0; i < 64; ++i) {
        if (const auto now = value.load(std::memory_order_acquire); now != old) return now;
        pause_cpu();
      }
    } while (spin.load(std::memory_order_relaxed) && Clock::now() < until);
  }
  for (;;) {
    if (const auto now = value.load(std::memory_order_acquire); now != old) return now;
    value.wait(old, std::memory_order_acquire);
  }
}

}  // namespace

namespace {

/// Tells when the other workers do more harm than good. A worker whose core another program holds
/// keeps its task, and the caller waits for it, for whole time slices: the machine is then slower
/// with it than without. Told of every call, this lets the caller work alone for a while.
class Company {
 public:
  /// True if the next call should use the workers.
  bool wanted(Clock::time_point now) const { return now >= alone_until_; }

  /// A call with workers took from `begun` to `now`; the caller ran out of tasks at `idle`.
  void told(Clock::time_point begun, Clock::time_point idle, Clock::time_point now) {
    spent_ += now - begun;
    if (now - idle > kLongWait) lost_ += now - idle;
    if (lost_ * 5 > std::max(kPeriod, spent_)) {
      alone_until_ = now + pause_;
      pause_ = std::min(pause_ * 2, kLongestPause);
    } else if (spent_ < kPeriod) {
      return;
    } else if (lost_ * 20 < kPeriod) {
      pause_ = kFirstPause;
    }
    spent_ = lost_ = {};
  }

 private:
  static constexpr Clock::duration kLongWait = std::chrono::microseconds(300);
  static constexpr Clock::duration kPeriod = std::chrono::milliseconds(10);
  static constexpr Clock::duration kFirstPause = std::chrono::milliseconds(20);
  static constexpr Clock::duration kLongestPause = std::chrono::milliseconds(640);

  Clock::time_point alone_until_{};
  Clock::duration pause_ = kFirstPause;
  Clock::duration spent_{}, lost_{};  // in calls of this period
};

}  // namespace

std::vector<unsigned> usable_cpu_ids() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return {0};
  std::vector<unsigned> ids;
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set)) ids.push_back(cpu);
  return ids.empty() ? std::vector<unsigned>{0} : ids;
}

unsigned usable_cpus() { return static_cast<unsigned>(usable_cpu_ids().size()); }

bool bind_to_cpu(std::thread::native_handle_type thread, unsigned cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return ::pthread_setaffinity_np(thread, sizeof set, &set) == 0;
}

struct ThreadPool::State {
  // Written by the caller before `epoch` changes, read by workers after it.
  void (*call)(void*, std::size_t) = nullptr;
  void* context = nullptr;
  std::size_t tasks = 0;
  bool stop = false;

  alignas(64) std::atomic<std::uint32_t> epoch{0};
  std::atomic<bool> spin{false};  // beside the epoch, which who spins looks at
  alignas(64) std::atomic<std::size_t> next{0};
  alignas(64) std::atomic<std::uint32_t> working{0};  // workers that have not finished this epoch

  std::vector<unsigned> cpus;     // usable ones
  bool own_cores = false;         // a core for every worker
  std::atomic<bool> lent{false};  // to processes that work for the caller
  std::mutex turn;                // held by the thread whose call runs
  Company company;                // of that thread
  std::vector<std::thread> threads;

  void take_tasks() {
    for (;;) {
      const auto task = next.fetch_add(1, std::memory_order_relaxed);
      if (task >= tasks) return;
      call(context, task);
    }
  }

  void work() {
    std::uint32_t seen = 0;
    for (;;) {
      seen = wait_for_change(epoch, seen, spin);
      if (stop) return;
      take_tasks();
      if (working.fetch_sub(1, std::memory_order_acq_rel) == 1) working.notify_one();
    }
  }
};

ThreadPool::ThreadPool(unsigned threads) : state_(std::make_unique<State>()) {
  state_->cpus = usable_cpu_ids();
  const auto cpus = static_cast<unsigned>(state_->cpus.size());
  if (threads == 0) threads = cpus;
  state_->own_cores = threads <= cpus && threads > 1;
  for (unsigned i = 1; i < threads; ++i)
    state_->threads.emplace_back([s = state_.get()] { s->work(); });
}

ThreadPool::~ThreadPool() {
  state_->stop = true;
  state_->epoch.fetch_add(1, std::memory_order_release);
  state_->epoch.notify_all();
  for (auto& t : state_->threads) t.join();
}

void ThreadPool::pin(std::size_t first) {
  const auto& cpus = state_->cpus;
  if (size() != cpus.size()) return;
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    const auto thread = i == 0 ? ::pthread_self() : state_->threads[i - 1].native_handle();
    // Where the system refuses, the thread stays where it is.
    (void)bind_to_cpu(thread, cpus[(first + i) % cpus.size()]);
  }
  on_every_worker([] { ask_for_time_slices(kShortSlices); });
}

void ThreadPool::rest() { state_->spin.store(false, std::memory_order_relaxed); }

void ThreadPool::set_lent(bool lent) {
  state_->lent = lent;
  if (lent) rest();
}

unsigned ThreadPool::size() const { return static_cast<unsigned>(state_->threads.size()) + 1; }

void ThreadPool::run(std::size_t tasks, void (*call)(void*, std::size_t), void* context,
                     bool everybody) {
  if (tasks == 0) return;
  const auto alone = [&] {
    for (std::size_t task = 0; task < tasks; ++task) call(context, task);
  };
  auto& s = *state_;
  if (tasks == 1 || s.threads.empty()) return alone();
  const std::lock_guard lock(s.turn);
  const auto begun = Clock::now();
  const bool lent = s.lent;
  if (!everybody && !s.company.wanted(begun)) return alone();
  s.spin.store(s.own_cores && !lent, std::memory_order_relaxed);
  s.call = call;
  s.context = context;
  s.tasks = tasks;
  s.next.store(0, std::memory_order_relaxed);
  s.working.store(static_cast<std::uint32_t>(s.threads.size()), std::memory_order_relaxed);
  s.epoch.fetch_add(1, std::memory_order_release);
  s.epoch.notify_all();
  s.take_tasks();
  auto left = s.working.load(std::memory_order_acquire);
  if (left == 0) return;
  const auto idle = Clock::now();
  while (left != 0) left = wait_for_change(s.working, left, s.spin);
  // Who took a core while it was lent works for us.
  if (!lent) s.company.told(begun, idle, Clock::now());
}

}  // namespace moesaic
