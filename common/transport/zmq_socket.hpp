#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <zmq.hpp>

#include "common/base/result.hpp"
#include "common/transport/carriers.hpp"

namespace moesaic::transport {

/// What connectors and listeners of one ZeroMQ carrier share. Only files of this folder include
/// this header.
struct ZmqShared {
  zmq::context_t context{1};
  ZmqOptions options;
  std::uint64_t malformed = 0;  ///< messages from peers that are no frame
  std::uint64_t monitors = 0;   ///< made so far; gives them names
};

/// Limits, heartbeats, time-outs: what every socket needs before it connects or binds.
void set_options(zmq::socket_t& socket, const CarrierLimits& limits);

/// True if this carrier encrypts connections to that address.
bool uses_curve(const ZmqOptions& options, const Address& address);

/// @errors kInvalidArgument: tcp beyond loopback without keys (both remedies in the text)
[[nodiscard]] Result<void> check_crypto(const ZmqOptions& options, const Address& address);

std::string endpoint_of(const Address& address);

/// Counts a message that is no frame; `peer` is the label of the metric.
void count_malformed(ZmqShared& shared, const std::string& peer);
/// The same and a line in the log for a message without end, whose connection is closed.
void count_endless(ZmqShared& shared, const std::string& peer);

/// Lets the socket see what its io thread has told it, such as room in a queue: sending does so
/// only now and then.
void catch_up(zmq::socket_t& socket);

/// The descriptor that becomes readable when the socket may have something (edge-triggered).
int descriptor_of(zmq::socket_t& socket);

}  // namespace moesaic::transport
