#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

namespace moesaic::transport {

/// How many frames one connection may have on their way in each direction. The sender stops at the
/// limit; the receiver tells from time to time how many it has taken. So the queues of the library
/// below, at whose limits it stops reading and with that hears no heartbeats, never fill with
/// peers of ours, however slowly they take frames. One per connection; not thread-safe.
class FrameWindow {
 public:
  /// @param queue frames that may wait at either end
  explicit FrameWindow(std::uint64_t queue) : frames_(2 * queue) {}
  /// ZeroMQ's limit of messages that is never reached: it counts what was read only by halves, and
  /// there are messages of the carrier itself.
  static constexpr int library_limit(std::size_t queue) { return static_cast<int>(4 * queue) + 32; }

  bool full() const { return sent_ - acknowledged_ >= frames_; }
  void sent() { ++sent_; }
  /// The peer says how many it has taken since the connection began; nonsense changes nothing.
  void acknowledged(std::uint64_t taken) {
    if (taken > acknowledged_ && taken <= sent_) acknowledged_ = taken;
  }

  void took() { ++taken_; }
  /// What the peer should be told now: the number taken, a few times per window.
  std::optional<std::uint64_t> due() const {
    if ((taken_ - told_) * kToldPerWindow < frames_) return std::nullopt;
    return taken_;
  }
  void told() { told_ = taken_; }

 private:
  static constexpr std::uint64_t kToldPerWindow = 8;

  std::uint64_t frames_;
  std::uint64_t sent_ = 0;
  std::uint64_t acknowledged_ = 0;
  std::uint64_t taken_ = 0;
  std::uint64_t told_ = 0;
};

}  // namespace moesaic::transport
