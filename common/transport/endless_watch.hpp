#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace moesaic::transport {

/// How many bytes the kernel has received on a tcp connection.
std::optional<std::uint64_t> bytes_received(int descriptor);

/// Notices a message that never ends. ZeroMQ keeps the parts of a message until the last one is
/// there and has no limit for all of them; what the kernel has received tells how many there must
/// be. For tcp connections; others (their peers are processes of our own user) always pass. One per
/// connection; not thread-safe.
class EndlessWatch {
 public:
  using Clock = std::chrono::steady_clock;

  /// A message of the connection was complete.
  void heard() { heard_ = true; }

  enum class Finding : std::uint8_t { kFine, kGrowing, kEndless };
  /// To be asked several times a second, and more often while one is growing.
  /// @param max_bytes of a message
  /// @param sweeps how often everything complete has been read by now: a peer whose complete
  /// messages are merely not read yet does no wrong
  Finding look(int descriptor, std::uint64_t max_bytes, std::uint64_t sweeps,
               Clock::time_point now);

 private:
  bool heard_ = true;
  std::uint64_t base_ = 0;  ///< bytes received when it was last heard
  Clock::time_point base_at_{};
  std::optional<std::uint64_t> over_since_;  ///< sweeps
};

}  // namespace moesaic::transport
