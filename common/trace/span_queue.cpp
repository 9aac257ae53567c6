#include "common/trace/span_queue.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "common/metrics/metrics.hpp"

namespace moesaic::trace_detail {

void SpanQueue::push(SpanRecord record) {
  {
    const std::lock_guard lock(mutex_);
    if (!closed_ && waiting_.size() < capacity_) {
      waiting_.push_back(std::move(record));
      if (waiting_.size() == kBatch) news_.notify_one();
      return;
    }
  }
  count_dropped(1);
}

std::vector<SpanRecord> SpanQueue::take(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  news_.wait_for(lock, patience, [&] { return closed_ || waiting_.size() >= kBatch; });
  if (waiting_.size() <= kBatch) return std::exchange(waiting_, {});
  const auto end = waiting_.begin() + kBatch;
  std::vector<SpanRecord> batch(std::make_move_iterator(waiting_.begin()),
                                std::make_move_iterator(end));
  waiting_.erase(waiting_.begin(), end);
  return batch;
}

void SpanQueue::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  news_.notify_one();
}

bool SpanQueue::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

void SpanQueue::count_dropped(std::size_t spans) {
  dropped_ += spans;
  metrics::counter("moesaic_trace_dropped_spans_total").add(static_cast<double>(spans));
}

std::int64_t SpanQueue::unix_ns(Clock::time_point at) const {
  return wall_ns_ + std::chrono::duration_cast<std::chrono::nanoseconds>(at - steady_).count();
}

}  // namespace moesaic::trace_detail
