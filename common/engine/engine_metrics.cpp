#include "common/engine/engine_metrics.hpp"

namespace moesaic {
namespace {

double seconds(EngineMetrics::Clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

}  // namespace

EngineMetrics::EngineMetrics(const SchedulerLimits& limits, std::size_t kv_blocks)
    : kv_blocks_(static_cast<double>(kv_blocks)),
      running_(metrics::gauge("moesaic_engine_requests_running")),
      waiting_(metrics::gauge("moesaic_engine_requests_waiting")),
      kv_usage_(metrics::gauge("moesaic_kv_usage_ratio")),
      kv_free_(metrics::gauge("moesaic_kv_blocks", {{"state", "free"}})),
      kv_active_(metrics::gauge("moesaic_kv_blocks", {{"state", "active"}})),
      step_(metrics::histogram("moesaic_engine_step_seconds")),
      queue_(metrics::histogram("moesaic_request_queue_seconds")),
      prefill_(metrics::histogram("moesaic_request_prefill_seconds")),
      decode_(metrics::histogram("moesaic_request_decode_seconds")) {
  metrics::gauge("moesaic_engine_requests_waiting_limit")
      .set(static_cast<double>(limits.max_waiting));
  // There is no prefix cache: none is asked.
  static_cast<void>(metrics::counter("moesaic_prefix_queries_total"));
  static_cast<void>(metrics::counter("moesaic_prefix_hits_total"));
  publish(0, 0, kv_blocks);
}

void EngineMetrics::planned(const std::vector<Assignment>& plan, Clock::time_point now) {
  for (const auto& assignment : plan) {
    auto& sequence = *assignment.sequence;
    if (sequence.begun) continue;
    sequence.begun = now;
    queue_.observe(seconds(now - sequence.arrived));
  }
}

void EngineMetrics::stepped(Clock::duration time) { step_.observe(seconds(time)); }

void EngineMetrics::drawn(Sequence& sequence, Clock::time_point now) {
  if (!sequence.first_token) {
    sequence.first_token = now;
    prefill_.observe(seconds(now - *sequence.begun));
  }
  if (sequence.finished()) decode_.observe(seconds(now - *sequence.first_token));
}

void EngineMetrics::publish(std::size_t running, std::size_t waiting, std::size_t kv_blocks_free) {
  const auto free = static_cast<double>(kv_blocks_free);
  running_.set(static_cast<double>(running));
  waiting_.set(static_cast<double>(waiting));
  kv_free_.set(free);
  kv_active_.set(kv_blocks_ - free);
  kv_usage_.set(kv_blocks_ > 0 ? (kv_blocks_ - free) / kv_blocks_ : 0);
}

}  // namespace moesaic
