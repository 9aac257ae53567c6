#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "common/trace/span_record.hpp"

/// Inside of common/trace: not for others.
namespace moesaic::trace_detail {

/// Finished spans between those who make them and the exporter. Bounded: what does not fit is
/// dropped and counted. Thread-safe.
class SpanQueue {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t kBatch = 512;

  SpanQueue(double sample_ratio, std::size_t capacity)
      : sample_ratio_(sample_ratio), capacity_(capacity) {}

  /// Of traces that begin here.
  double sample_ratio() const { return sample_ratio_; }
  void push(SpanRecord record);
  /// The oldest, at most kBatch: as soon as there are so many, else when `patience` has passed or
  /// the queue is closed.
  std::vector<SpanRecord> take(std::chrono::milliseconds patience);
  /// Takes no more spans.
  void close();
  bool closed() const;
  void count_dropped(std::size_t spans);
  std::uint64_t dropped() const { return dropped_; }
  std::int64_t unix_ns(Clock::time_point at) const;

 private:
  const double sample_ratio_;
  const std::size_t capacity_;
  // Both clocks at one time: spans nest whatever happens to the wall clock later.
  const Clock::time_point steady_ = Clock::now();
  const std::int64_t wall_ns_ = std::chrono::duration_cast<std::chrono::nanoseconds>(
                                    std::chrono::system_clock::now().time_since_epoch())
                                    .count();
  std::atomic<std::uint64_t> dropped_{0};
  mutable std::mutex mutex_;
  std::condition_variable news_;
  std::vector<SpanRecord> waiting_;
  bool closed_ = false;
};

}  // namespace moesaic::trace_detail
