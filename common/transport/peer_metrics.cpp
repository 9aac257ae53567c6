#include "common/transport/peer_metrics.hpp"

namespace moesaic::transport {

PeerMetrics::PeerMetrics(const std::string& from, const std::string& to, bool encrypted)
    : rtt_(metrics::histogram("moesaic_wire_rtt_seconds", {{"peer", to}})),
      drops_(metrics::counter("moesaic_wire_hwm_drops_total", {{"peer", to}})),
      blocked_seconds_(
          metrics::counter("moesaic_wire_send_blocked_seconds_total", {{"peer", to}})) {
  for (std::size_t i = 0; i < std::size(kFrameKindNames); ++i) {
    const metrics::Labels labels{{"from", from},
                                 {"to", to},
                                 {"kind", std::string(kFrameKindNames[i])},
                                 {"crypto", encrypted ? "curve" : "none"}};
    bytes_[i] = metrics::counter("moesaic_wire_bytes_total", labels);
    messages_[i] = metrics::counter("moesaic_wire_messages_total", labels);
  }
}

void PeerMetrics::sent(FrameType type, std::size_t bytes) {
  const auto kind = static_cast<std::size_t>(kind_of(type));
  bytes_[kind].add(static_cast<double>(bytes));
  messages_[kind].add();
  if (blocked_since_ == Clock::time_point{}) return;
  blocked_seconds_.add(std::chrono::duration<double>(Clock::now() - blocked_since_).count());
  blocked_since_ = {};
}

void PeerMetrics::round_trip(std::chrono::duration<double> time) { rtt_.observe(time.count()); }

void PeerMetrics::blocked(bool dropped) {
  if (dropped) drops_.add();
  if (blocked_since_ == Clock::time_point{}) blocked_since_ = Clock::now();
}

void count_expired(FrameType question) {
  const auto* const name = question == FrameType::kExpertRows ? "expert_rows"
                           : question == FrameType::kMoeRows  ? "moe_rows"
                           : question == FrameType::kEncode   ? "encode"
                                                              : "submit";
  metrics::counter("moesaic_wire_deadline_exceeded_total", {{"type", name}}).add();
}

}  // namespace moesaic::transport
