#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>
#include <zmq.hpp>

#include "common/base/result.hpp"
#include "common/transport/frame.hpp"

namespace moesaic::transport {

/// A frame of more bytes travels as several parts of one message: between parts heartbeats get
/// through, so that a long transfer is not taken for a dead peer. A part must come within the
/// heartbeat timeout: half a megabyte a second is enough.
inline constexpr std::size_t kPartBytes = std::size_t{256} << 10;

// Messages of the carrier itself; no frame is that short.
/// The first one of a connector on each connection. Connections that ZeroMQ makes again by itself,
/// with messages that were meant for the one before, do not have it and are not heard.
inline constexpr std::string_view kHi = "MSEC-HI!";
/// From listener to connector: "I take nothing from you any more".
inline constexpr std::string_view kBye = "MSEC-BYE";
/// How many frames of yours I have taken on this connection (see FrameWindow): before 8 bytes,
/// little-endian.
inline constexpr std::string_view kTaken = "MSEC-ACK";
zmq::message_t taken_message(std::uint64_t frames);

/// The frame as bytes, in memory that libzmq sends from: nothing is copied after this.
/// @errors kTooLarge
[[nodiscard]] Result<zmq::message_t> to_message(const Frame& frame, std::size_t max_bytes);

/// Sends without waiting, in parts if it must. False: the queue is full, `message` is unchanged.
/// @throws zmq::error_t
bool send_message(zmq::socket_t& socket, zmq::message_t& message);

/// A message as it was read.
class ReadMessage {
 public:
  /// Takes the next message of a socket, if there is one.
  /// @param routed a ROUTER's, which begins with the route
  /// @throws zmq::error_t
  bool read(zmq::socket_t& socket, bool routed, std::size_t max_bytes);

  std::string_view route() const { return route_.to_string_view(); }
  bool is(std::string_view text) const { return !in_parts_ && first_.to_string_view() == text; }
  /// The number in a kTaken.
  std::optional<std::uint64_t> taken() const;
  /// @errors those of decode; kTooLarge
  [[nodiscard]] Result<Frame> frame() const;
  /// What ZeroMQ knows of the connection; null: not said.
  const char* property(const char* name) { return ::zmq_msg_gets(first_.handle(), name); }
  /// The descriptor of the connection.
  int descriptor() { return ::zmq_msg_get(first_.handle(), ZMQ_SRCFD); }

 private:
  zmq::message_t route_;
  zmq::message_t first_;
  bool in_parts_ = false;
  bool too_large_ = false;
  std::vector<std::byte> joined_;
};

}  // namespace moesaic::transport
