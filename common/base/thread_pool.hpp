#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace moesaic {

/// A fixed set of kernel workers, one per process. The caller of `parallel_for` is worker 0; the
/// others sleep on a futex between calls (after a spin of at most 50 us, and only when every thread
/// has a core of its own). Where workers keep losing their cores to another program, calls run on
/// the caller alone for a while: never much slower than one thread. Calls from several threads take
/// turns; tasks must not throw, nor call `parallel_for` of the same pool.
class ThreadPool {
 public:
  /// @param threads workers including the caller, >= 1; 0 means one per CPU this process may use
  explicit ThreadPool(unsigned threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  unsigned size() const;

  /// Gives every worker a CPU of its own and short time slices for good, the calling thread (worker
  /// 0 from here on) the first-th, counted round. For processes that work for each other on the
  /// same cores: there the system leaves workers of one waiting for one CPU while the other stands
  /// idle. Does nothing if there are not as many workers as CPUs.
  void pin(std::size_t first);
  /// No call comes soon: workers that spin go to sleep. By the thread that calls.
  void rest();
  /// While this lives, processes that work for the caller, or it for them, may want the cores:
  /// workers do not spin, and one that has lost its core is not taken as a sign of a stranger. One
  /// at a time, made and destroyed by the thread that calls.
  class Loan {
   public:
    explicit Loan(ThreadPool& pool) : pool_(pool) { pool_.set_lent(true); }
    ~Loan() { pool_.set_lent(false); }
    Loan(const Loan&) = delete;
    Loan& operator=(const Loan&) = delete;

   private:
    ThreadPool& pool_;
  };

  /// Runs fn(task) once for each task in [0, tasks), in any order, on any worker; returns when all
  /// are done. No allocation. Which worker runs a task must not change its result.
  template <class F>
  void parallel_for(std::size_t tasks, F&& fn) {
    start(tasks, fn, false);
  }

  /// Runs fn() once on every worker, at the same time.
  template <class F>
  void on_every_worker(F&& fn) {
    std::atomic<unsigned> arrived{0};
    const auto task = [&](std::size_t) {
      fn();
      // Who waits here takes no second task.
      arrived.fetch_add(1);
      while (arrived.load() < size()) std::this_thread::yield();
    };
    start(size(), task, true);
  }

 private:
  template <class F>
  void start(std::size_t tasks, F&& fn, bool everybody) {
    using Fn = std::remove_reference_t<F>;
    run(
        tasks, [](void* f, std::size_t task) { (*static_cast<Fn*>(f))(task); },
        const_cast<void*>(static_cast<const void*>(std::addressof(fn))), everybody);
  }
  void set_lent(bool lent);
  void run(std::size_t tasks, void (*call)(void*, std::size_t), void* context, bool everybody);

  struct State;
  std::unique_ptr<State> state_;
};

/// CPUs this process may use (affinity mask), at least 1, and their numbers.
unsigned usable_cpus();
std::vector<unsigned> usable_cpu_ids();
/// False if the system refuses; the thread then runs where it did.
bool bind_to_cpu(std::thread::native_handle_type thread, unsigned cpu);

}  // namespace moesaic
