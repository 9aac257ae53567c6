#include "common/transport/zmq_monitor.hpp"

#include <cstring>

namespace moesaic::transport {
namespace {

// Not ACCEPT_FAILED: while descriptors are short it comes in an endless stream.
constexpr int kWanted = ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_CONNECTED | ZMQ_EVENT_DISCONNECTED |
                        ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
                        ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;

}  // namespace

ZmqMonitor::ZmqMonitor(ZmqShared& shared, zmq::socket_t& socket)
    : watched_(&socket), events_(shared.context, zmq::socket_type::pair) {
  const auto name = "inproc://monitor-" + std::to_string(++shared.monitors);
  if (::zmq_socket_monitor(socket.handle(), name.c_str(), kWanted) != 0) throw zmq::error_t();
  // No limit: with one, the io thread would stop at it until somebody reads.
  events_.set(zmq::sockopt::rcvhwm, 0);
  events_.set(zmq::sockopt::linger, 0);
  events_.connect(name);
  // ZeroMQ signals only to a reader that found nothing before.
  static_cast<void>(next());
  descriptor_ = descriptor_of(events_);
}

ZmqMonitor::~ZmqMonitor() {
  // First: the io thread would wait for ever to tell a reader that has gone.
  ::zmq_socket_monitor(watched_->handle(), nullptr, 0);
}

std::optional<ZmqMonitor::Event> ZmqMonitor::next() {
  // An event is two parts: kind and value, then the address.
  zmq::message_t what, where;
  if (!events_.recv(what, zmq::recv_flags::dontwait) ||
      !events_.recv(where, zmq::recv_flags::dontwait) || what.size() != 6)
    return std::nullopt;
  Event event;
  std::memcpy(&event.kind, what.data(), sizeof event.kind);
  std::memcpy(&event.value, what.data<std::byte>() + sizeof event.kind, sizeof event.value);
  return event;
}

}  // namespace moesaic::transport
