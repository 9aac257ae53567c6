#include "common/transport/zmq_socket.hpp"

#include <algorithm>

#include "common/metrics/metrics.hpp"
#include "common/transport/wire.hpp"

namespace moesaic::transport {
namespace {

constexpr int kReconnectMs = 20;
constexpr int kReconnectMaxMs = 200;
constexpr int kConnectTimeoutMs = 1000;
constexpr int kHandshakeMs = 2000;
constexpr int kUnackedMs = 1000;
constexpr int kBacklog = 256;
constexpr std::int64_t kCurveOverhead = 128;

}  // namespace

void set_options(zmq::socket_t& socket, const CarrierLimits& limits) {
  namespace opt = zmq::sockopt;
  const auto queue = static_cast<int>(limits.queue_frames);
  const auto silence = static_cast<int>(limits.heartbeat_timeout.count());
  socket.set(opt::linger, 0);
  socket.set(opt::ipv6, true);
  socket.set(opt::immediate, true);
  socket.set(opt::sndhwm, queue);
  socket.set(opt::rcvhwm, queue);
  socket.set(opt::maxmsgsize, static_cast<std::int64_t>(limits.max_frame_bytes) + kCurveOverhead);
  socket.set(opt::heartbeat_ivl, static_cast<int>(limits.heartbeat.count()));
  socket.set(opt::heartbeat_timeout, silence);
  socket.set(opt::heartbeat_ttl, silence);
  socket.set(opt::handshake_ivl, kHandshakeMs);
  socket.set(opt::connect_timeout, kConnectTimeoutMs);
  socket.set(opt::tcp_maxrt, kUnackedMs);
  socket.set(opt::reconnect_ivl, kReconnectMs);
  socket.set(opt::reconnect_ivl_max, kReconnectMaxMs);
  socket.set(opt::backlog, kBacklog);
}

bool uses_curve(const ZmqOptions& options, const Address& address) {
  return address.scheme == Address::Scheme::kTcp && options.keys != nullptr;
}

Result<void> check_crypto(const ZmqOptions& options, const Address& address) {
  if (uses_curve(options, address) || is_local(address) || options.plaintext) return {};
  return fail(Errc::kInvalidArgument,
              to_string(address) +
                  ": plain text beyond this host is refused; give keys (transport.keys, made by "
                  "`moesaic keys`) or say transport.plaintext: yes");
}

std::string endpoint_of(const Address& address) {
  return (address.scheme == Address::Scheme::kIpc ? "ipc://" : "tcp://") + address.place;
}

Result<zmq::message_t> to_message(const Frame& frame, std::size_t max_bytes) {
  MOESAIC_TRY(const auto size, checked_size(frame, max_bytes));
  // Encoded into the memory that libzmq sends from: nothing is copied after this.
  zmq::message_t message(size);
  encode(frame, {message.data<std::byte>(), size});
  return message;
}

void count_malformed(ZmqShared& shared, const std::string& peer) {
  ++shared.malformed;
  metrics::counter("moesaic_wire_malformed_total", {{"peer", peer}}).add();
}

bool read_message(zmq::socket_t& socket, ReadMessage& message) {
  if (!socket.recv(message.first, zmq::recv_flags::dontwait)) return false;
  message.parts = 1;
  for (bool more = message.first.more(); more; ++message.parts) {
    if (!socket.recv(message.last, zmq::recv_flags::dontwait)) return false;
    more = message.last.more();
  }
  return true;
}

int descriptor_of(zmq::socket_t& socket) { return static_cast<int>(socket.get(zmq::sockopt::fd)); }

}  // namespace moesaic::transport
