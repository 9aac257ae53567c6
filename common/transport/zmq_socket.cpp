#include "common/transport/zmq_socket.hpp"

#include <algorithm>

#include "common/base/log.hpp"
#include "common/metrics/metrics.hpp"
#include "common/transport/frame_window.hpp"
#include "common/transport/zmq_message.hpp"

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
  const auto queue = FrameWindow::library_limit(limits.queue_frames);
  const auto silence = static_cast<int>(limits.heartbeat_timeout.count());
  socket.set(opt::linger, 0);
  socket.set(opt::ipv6, true);
  socket.set(opt::sndhwm, queue);
  socket.set(opt::rcvhwm, queue);
  socket.set(
      opt::maxmsgsize,
      static_cast<std::int64_t>(std::min(limits.max_frame_bytes, kPartBytes)) + kCurveOverhead);
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

void count_malformed(ZmqShared& shared, const std::string& peer) {
  ++shared.malformed;
  metrics::counter("moesaic_wire_malformed_total", {{"peer", peer}}).add();
}

void count_endless(ZmqShared& shared, const std::string& peer) {
  count_malformed(shared, peer);
  log(LogLevel::kWarn, "transport: " + peer + " sends a message of more than " +
                           std::to_string(shared.options.limits.max_frame_bytes) +
                           " bytes; connection closed");
}

void catch_up(zmq::socket_t& socket) { static_cast<void>(socket.get(zmq::sockopt::events)); }

int descriptor_of(zmq::socket_t& socket) { return static_cast<int>(socket.get(zmq::sockopt::fd)); }

}  // namespace moesaic::transport
