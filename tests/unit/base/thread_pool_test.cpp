#include "common/base/thread_pool.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace moesaic {
namespace {

TEST(ThreadPoolTest, RunsEachTaskOnceWhateverTheNumberOfThreads) {
  for (const unsigned threads : {1U, 2U, 5U}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    for (const std::size_t tasks : {0UL, 1UL, 2UL, 3UL, 1000UL}) {
      std::vector<std::atomic<int>> count(tasks);
      pool.parallel_for(tasks, [&](std::size_t task) { ++count[task]; });
      for (const auto& c : count) EXPECT_EQ(c, 1);
    }
  }
}

TEST(ThreadPoolTest, ManyShortCallsLoseNoTask) {
  ThreadPool pool(3);
  std::atomic<std::size_t> sum{0};
  for (int call = 0; call < 20000; ++call)
    pool.parallel_for(4, [&](std::size_t task) { sum += task; });
  EXPECT_EQ(sum, 20000U * 6U);
}

TEST(ThreadPoolTest, IdlePoolUsesNoCpu) {
  ThreadPool pool(2);
  pool.parallel_for(8, [](std::size_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  rusage before{}, after{};
  ::getrusage(RUSAGE_SELF, &before);
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  ::getrusage(RUSAGE_SELF, &after);
  const auto us = [](const timeval& t) { return t.tv_sec * 1000000L + t.tv_usec; };
  EXPECT_LT(us(after.ru_utime) - us(before.ru_utime) + us(after.ru_stime) - us(before.ru_stime),
            10000);
}

/// CPU time of the threads of this process but this one.
std::chrono::nanoseconds others_time() {
  const auto read = [](clockid_t clock) {
    timespec t{};
    ::clock_gettime(clock, &t);
    return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
  };
  return read(CLOCK_PROCESS_CPUTIME_ID) - read(CLOCK_THREAD_CPUTIME_ID);
}

TEST(ThreadPoolTest, WorkersDoNotSpinOnceTheyMayRestNorWhileCoresAreLent) {
  if (usable_cpus() < 2) GTEST_SKIP() << "nobody spins on one core";
  ThreadPool pool(2);
  // A short call every 200 us: a worker that spins does so for 50 us after each.
  const auto spent = [&](bool rest) {
    const auto begun = others_time();
    for (int i = 0; i < 100; ++i) {
      pool.parallel_for(2, [](std::size_t) {});
      if (rest) pool.rest();
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return others_time() - begun;
  };
  // On a busy machine the pool leaves its worker alone now and then.
  auto spinning = spent(false), resting = spent(true);
  for (int i = 0; i < 10; ++i) {
    spinning = std::max(spinning, spent(false));
    resting = std::min(resting, spent(true));
  }
  EXPECT_LT(resting, spinning);
  const ThreadPool::Loan loan(pool);
  auto lent = spent(false);
  for (int i = 0; i < 10; ++i) lent = std::min(lent, spent(false));
  EXPECT_LT(lent, spinning);
}

TEST(ThreadPoolTest, WhoTakesALentCoreIsNoStranger) {
  ThreadPool pool(2);
  const auto caller = std::this_thread::get_id();
  // As below, but the cores are lent: the worker is asked again and again.
  const ThreadPool::Loan loan(pool);
  for (int call = 0; call < 20; ++call) {
    std::atomic<bool> taken{false};
    pool.parallel_for(2, [&](std::size_t) {
      if (std::this_thread::get_id() == caller) {
        for (int i = 0; i < 4000 && !taken; ++i)
          std::this_thread::sleep_for(std::chrono::microseconds(50));
        return;
      }
      taken = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    });
    EXPECT_TRUE(taken) << "left out at call " << call;
  }
}

TEST(ThreadPoolTest, EveryWorkerIsReachedOnce) {
  ThreadPool pool(4);
  std::mutex mutex;
  std::multiset<std::thread::id> ids;
  pool.on_every_worker([&] {
    const std::lock_guard lock(mutex);
    ids.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(ids.size(), 4U);
  EXPECT_EQ(std::set(ids.begin(), ids.end()).size(), 4U);
}

TEST(ThreadPoolTest, WorkersThatKeepTheCallerWaitingAreLeftOutForAWhile) {
  ThreadPool pool(2);
  const auto caller = std::this_thread::get_id();
  std::atomic<int> helped{0};
  const auto call = [&](std::chrono::milliseconds worker_time) {
    helped = 0;
    std::atomic<bool> taken{false};
    pool.parallel_for(2, [&](std::size_t) {
      if (std::this_thread::get_id() == caller) {
        // The other task is for the worker, if it comes.
        for (int i = 0; i < 200 && !taken; ++i)
          std::this_thread::sleep_for(std::chrono::microseconds(50));
        return;
      }
      taken = true;
      ++helped;
      std::this_thread::sleep_for(worker_time);
    });
    return helped.load() > 0;
  };
  // A worker that loses its core in the middle of a task looks like this to the caller.
  int slow = 0, calls = 0;
  while (calls < 200 && call(std::chrono::milliseconds(10))) ++calls;
  EXPECT_LT(calls, 200) << "the caller went on waiting";
  for (int i = 0; i < 100 && slow == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    if (call(std::chrono::milliseconds(0))) ++slow;
  }
  EXPECT_EQ(slow, 1) << "the worker never came back";
}

}  // namespace
}  // namespace moesaic
