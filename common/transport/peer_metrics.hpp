#pragma once

#include <array>
#include <chrono>
#include <string>

#include "common/metrics/metrics.hpp"
#include "common/transport/frame_kind.hpp"

namespace moesaic::transport {

/// What one endpoint counts about one peer; looked up once, when the peer comes up.
class PeerMetrics {
 public:
  /// @param from, to full names; `encrypted`: by CURVE
  PeerMetrics(const std::string& from, const std::string& to, bool encrypted);

  void sent(FrameType type, std::size_t bytes);
  void round_trip(std::chrono::duration<double> time);
  /// A frame was refused for want of room (`dropped`) or of credit: it waits from now on.
  void blocked(bool dropped);

 private:
  using Clock = std::chrono::steady_clock;
  std::array<metrics::Counter, std::size(kFrameKindNames)> bytes_;
  std::array<metrics::Counter, std::size(kFrameKindNames)> messages_;
  metrics::Histogram rtt_;
  metrics::Counter drops_;
  metrics::Counter blocked_seconds_;
  Clock::time_point blocked_since_{};
};

/// A question was given up because its time had run out.
void count_expired(FrameType question);

}  // namespace moesaic::transport
