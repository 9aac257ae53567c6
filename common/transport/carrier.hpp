#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "common/base/result.hpp"
#include "common/transport/address.hpp"
#include "common/transport/frame.hpp"

namespace moesaic::transport {

/// A connection of one carrier, never reused. One made by `connect` stays the same over reconnects.
using ConnectionId = std::uint32_t;

struct CarrierEvent {
  enum class Kind : std::uint8_t {
    kOpened,  ///< connected, connected again, or accepted; the peer is authenticated
    kClosed,  ///< the peer has gone or does not answer; accepted connections end here
    kFrame,
    kRefused,  ///< `connect`: the peer refuses our key, or we its; tried again later
    kWoken,    ///< by `wake`
  };
  Kind kind{};
  ConnectionId connection = 0;
  Frame frame{};
  bool accepted = false;    ///< kOpened: the peer connected to us
  std::string detail{};     ///< kClosed, kRefused: why, for people
  std::string key_owner{};  ///< kOpened: `role/name` of the peer's key; empty: no keys here
};

/// How frames get from one endpoint to another: inside a process, through shared memory, through
/// ZeroMQ. Bounded queues; nothing blocks but `receive`. A peer that is killed is noticed at once,
/// one that is frozen or cut off within a second. All members but `wake` are called on one thread.
class Carrier {
 public:
  virtual ~Carrier() = default;
  /// @return the address as connectors must name it (port filled in)
  /// @errors kIo: cannot listen there
  [[nodiscard]] virtual Result<Address> listen(const Address& address) = 0;
  /// Returns at once; kOpened follows when the peer is there, and is tried for until `close`.
  [[nodiscard]] virtual Result<ConnectionId> connect(const Address& address) = 0;
  virtual void close(ConnectionId connection) = 0;
  /// @errors kUnavailable: not open; kOverloaded: its queue is full; kTooLarge: over the limit of
  /// one frame
  [[nodiscard]] virtual Result<void> send(ConnectionId connection, Frame frame) = 0;
  /// The next event. Frames of a connection come in order, between its kOpened and its kClosed.
  /// Malformed bytes from a peer are counted and dropped; they never become an event.
  /// @errors kDeadlineExceeded
  [[nodiscard]] virtual Result<CarrierEvent> receive(
      std::chrono::steady_clock::time_point deadline) = 0;
  /// Makes one `receive` return kWoken; any thread.
  virtual void wake() = 0;
};

/// Limits and habits shared by all carriers.
struct CarrierLimits {
  std::size_t max_frame_bytes = std::size_t{256} << 20;
  std::size_t queue_frames = 256;  ///< per connection and direction
  std::size_t max_connections = 256;
  std::size_t max_connections_per_key = 32;          ///< of one owner
  std::size_t max_strangers = 512;                   ///< connections that are not served (yet)
  std::chrono::milliseconds heartbeat{200};          ///< how often a silent peer is asked
  std::chrono::milliseconds heartbeat_timeout{600};  ///< silence after which it counts as gone
};

}  // namespace moesaic::transport
