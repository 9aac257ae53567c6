#pragma once

#include <chrono>

#include "common/engine/scheduler.hpp"
#include "common/metrics/metrics.hpp"

namespace moesaic {

/// What an engine counts: moesaic_engine_*, moesaic_kv_* and the stages of its requests. The times
/// of one request are kept in its Sequence. Engine thread only, but for `waiting`.
class EngineMetrics {
 public:
  using Clock = Sequence::Clock;

  EngineMetrics(const SchedulerLimits& limits, std::size_t kv_blocks);

  /// The next step computes these; a sequence that is new among them has ended its wait.
  void planned(const std::vector<Assignment>& plan, Clock::time_point now);
  void stepped(Clock::duration time);
  /// A token was drawn.
  void drawn(Sequence& sequence, Clock::time_point now);
  void publish(std::size_t running, std::size_t waiting, std::size_t kv_blocks_free);
  /// Any thread.
  void waiting(std::size_t sequences) { waiting_.set(static_cast<double>(sequences)); }

 private:
  double kv_blocks_;
  metrics::Gauge running_, waiting_, kv_usage_, kv_free_, kv_active_;
  metrics::Histogram step_, queue_, prefill_, decode_;
};

}  // namespace moesaic
