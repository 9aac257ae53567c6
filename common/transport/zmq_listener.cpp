#include "common/transport/zmq_listener.hpp"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>

#include "common/base/log.hpp"
#include "common/metrics/metrics.hpp"
#include "common/transport/zap.hpp"

namespace moesaic::transport {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kRememberedGone = 1024;
constexpr auto kTellEvery = 10s;
constexpr int kLingerMs = 50;  // for last answers

/// ZeroMQ numbers the connections of a ROUTER: a zero, then 32 bits, big-endian, counting up.
std::optional<std::uint32_t> number_of(const std::string& route) {
  if (route.size() != 5 || route[0] != 0) return std::nullopt;
  std::uint32_t number = 0;
  for (std::size_t i = 1; i < 5; ++i) number = number << 8 | static_cast<std::uint8_t>(route[i]);
  return number;
}

bool is_newer(const std::string& route, const std::string& than) {
  const auto a = number_of(route);
  const auto b = number_of(than);
  return !a || !b || static_cast<std::int32_t>(*a - *b) > 0;
}

/// The port or path that a connection was made to; empty: no such connection.
std::string bound_place(int descriptor) {
  sockaddr_storage place{};
  socklen_t size = sizeof place;
  if (::getsockname(descriptor, reinterpret_cast<sockaddr*>(&place), &size) != 0) return {};
  if (place.ss_family == AF_INET)
    return std::to_string(ntohs(reinterpret_cast<const sockaddr_in&>(place).sin_port));
  if (place.ss_family == AF_INET6)
    return std::to_string(ntohs(reinterpret_cast<const sockaddr_in6&>(place).sin6_port));
  if (place.ss_family == AF_UNIX) return reinterpret_cast<const sockaddr_un&>(place).sun_path;
  return {};
}

}  // namespace

ZmqListener::ZmqListener(ZmqShared& shared, bool curve, std::function<ConnectionId()> next_id)
    : ZmqSource(shared),
      curve_(curve),
      next_id_(std::move(next_id)),
      strangers_(shared.options.limits.max_strangers) {
  make_socket(zmq::socket_type::router);
  socket_.set(zmq::sockopt::router_mandatory, true);
  if (!curve_) return;
  socket_.set(zmq::sockopt::curve_server, true);
  socket_.set(zmq::sockopt::curve_secretkey, shared_.options.keys->own().secret_key);
  socket_.set(zmq::sockopt::zap_domain, kZapDomain);
}

ZmqListener::~ZmqListener() { drop_socket(routes_.empty() ? 0 : kLingerMs); }

Address ZmqListener::bind(const Address& address) {
  socket_.bind(endpoint_of(address));
  auto bound = address;
  if (address.scheme == Address::Scheme::kTcp) {
    // The host as it was given: ZeroMQ names IPv4 addresses in IPv6's way.
    const auto last = socket_.get(zmq::sockopt::last_endpoint);
    bound.place.erase(bound.place.rfind(':'));
    const auto port = last.substr(last.rfind(':') + 1);
    bound.place += ':' + port;
    bound_.insert(port);
  } else {
    bound_.insert(bound.place);
  }
  bound.server_key = curve_ ? shared_.options.keys->own().public_key : "";
  return bound;
}

Result<void> ZmqListener::send(ConnectionId connection, zmq::message_t message,
                               CarrierEvents& events) {
  const auto found = routes_.find(connection);
  if (found == routes_.end()) return fail(Errc::kUnavailable, "the peer has gone");
  may_have_data = true;
  const auto route = found->second;
  const auto full = [this] {
    return fail(Errc::kOverloaded, "queue of " +
                                       std::to_string(shared_.options.limits.queue_frames) +
                                       " frames to the peer is full");
  };
  // The peer may have told that there is room.
  const auto waits_for_room = [&] {
    const auto to = accepted_.find(route);
    return to != accepted_.end() && to->second.window.full();
  };
  while (waits_for_room() && events.size() < shared_.options.limits.queue_frames &&
         read_data(events) != Read::kNothing) {
  }
  const auto to = accepted_.find(route);
  if (to == accepted_.end() || to->second.ignored)
    return fail(Errc::kUnavailable, "the peer has gone");
  if (to->second.window.full()) return full();
  bool sent = send_to(route, message);
  if (!sent && errno == EAGAIN) {
    catch_up(socket_);
    sent = send_to(route, message);
  }
  if (sent) {
    to->second.window.sent();
    return {};
  }
  if (errno == EAGAIN) return full();
  lose(route, events, "connection lost");
  return fail(Errc::kUnavailable, "the peer has gone");
}

/// False, with errno: the peer's queue is full (EAGAIN) or it has gone.
bool ZmqListener::send_to(const Route& route, zmq::message_t& message) {
  // Not by zmq.hpp: that a peer is full or has gone is no exception here.
  if (::zmq_send(socket_.handle(), route.data(), route.size(), ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
    return false;
  return send_message(socket_, message);
}

void ZmqListener::close(ConnectionId connection) {
  const auto found = routes_.find(connection);
  if (found == routes_.end()) return;
  const auto route = found->second;
  routes_.erase(found);
  dismiss(route);
}

/// Tells the peer to leave; what still comes from it is dropped.
void ZmqListener::dismiss(const Route& route) {
  auto& accepted = accepted_.at(route);
  accepted.ignored = true;
  strangers_.enter(accepted.descriptor);
  zmq::message_t bye(kBye);
  static_cast<void>(send_to(route, bye));
  may_have_data = true;
}

ZmqSource::Read ZmqListener::read_data(CarrierEvents& events) {
  if (!read_message(true)) return Read::kNothing;
  route_ = message_.route();
  const auto known = accepted_.find(route_);
  const auto socket =
      sockets_.find(known == accepted_.end() ? message_.descriptor() : known->second.descriptor);
  if (socket != sockets_.end()) socket->second.watch.heard();
  if (known == accepted_.end())
    return message_.is(kHi) && accept(route_, events) ? Read::kEvent : Read::kDropped;
  auto& from = known->second;
  if (from.ignored) return Read::kDropped;
  if (const auto taken = message_.taken()) {
    from.window.acknowledged(*taken);
    return Read::kDropped;
  }
  take_one(from);
  auto frame = message_.frame();
  if (!frame) {
    count_malformed(shared_, from.peer);
    return Read::kDropped;
  }
  events.push_back({CarrierEvent::Kind::kFrame, from.connection, std::move(*frame)});
  return Read::kEvent;
}

/// A frame has left the queue; tells the peer so now and then.
void ZmqListener::take_one(Accepted& from) {
  from.window.took();
  const auto due = from.window.due();
  if (!due) return;
  auto message = taken_message(*due);
  may_have_data = true;
  if (send_to(route_, message)) from.window.told();  // else with the next one
}

/// Begins the connection of a route that says hi. @return whether there are events now
bool ZmqListener::accept(const Route& route, CarrierEvents& events) {
  if (gone_.contains(route)) return false;
  read_monitor(events);
  const auto descriptor = message_.descriptor();
  const auto alive = sockets_.find(descriptor);
  const auto* user = message_.property("User-Id");
  const std::string peer = user != nullptr ? user : "";
  // Without its handler ZeroMQ would admit everybody; the handler's mark tells.
  const bool admitted = !curve_ || !peer.empty();
  if (!admitted || alive == sockets_.end() ||
      (!alive->second.route.empty() && !is_newer(route, alive->second.route))) {
    forget(route);
    return !events.empty();
  }
  if (!alive->second.route.empty()) lose(Route(alive->second.route), events, "connection lost");
  alive->second.route = route;
  strangers_.leave(descriptor);
  const bool full = is_full(peer);
  auto& accepted =
      accepted_
          .insert_or_assign(route,
                            Accepted{.descriptor = descriptor,
                                     .peer = peer.empty() ? "unknown" : peer,
                                     .window = FrameWindow(shared_.options.limits.queue_frames)})
          .first->second;
  if (full) {
    tell_full(accepted.peer);
    dismiss(route);
    return !events.empty();
  }
  accepted.connection = next_id_();
  routes_[accepted.connection] = route;
  events.push_back({CarrierEvent::Kind::kOpened, accepted.connection, {}, true, {}, peer});
  return true;
}

bool ZmqListener::is_full(const std::string& peer) const {
  const auto& limits = shared_.options.limits;
  if (routes_.size() >= limits.max_connections) return true;
  if (peer.empty()) return false;
  const auto of_peer = std::count_if(accepted_.begin(), accepted_.end(), [&](const auto& it) {
    return !it.second.ignored && it.second.peer == peer;
  });
  return static_cast<std::size_t>(of_peer) >= limits.max_connections_per_key;
}

void ZmqListener::tell_full(const std::string& peer) {
  const auto now = Clock::now();
  if (now - full_told_ < kTellEvery) return;
  full_told_ = now;
  const auto& limits = shared_.options.limits;
  log(LogLevel::kWarn, "transport: " + peer +
                           " refused: " + std::to_string(limits.max_connections) +
                           " connections, " + std::to_string(limits.max_connections_per_key) +
                           " of one key are the limit");
}

void ZmqListener::read_monitor(CarrierEvents& events) {
  while (const auto event = monitor_->next()) {
    switch (event->kind) {
      case ZMQ_EVENT_ACCEPTED:
        sockets_[event->value] = {};
        strangers_.enter(event->value);
        break;
      case ZMQ_EVENT_DISCONNECTED: {
        const auto found = sockets_.find(event->value);
        if (found == sockets_.end()) break;
        const auto route = std::move(found->second.route);
        sockets_.erase(found);
        strangers_.leave(event->value);
        if (!route.empty()) lose(route, events, "connection lost");
        break;
      }
      case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
      case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
      case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        count_failure();
        break;
      default:
        break;
    }
  }
  // All that the monitor had is read: these descriptors are still those that were accepted.
  const auto said = [](int descriptor) { return bytes_received(descriptor).value_or(0); };
  while (const auto surplus = strangers_.take_surplus(said)) show_out(*surplus);
}

/// ZeroMQ cannot close one connection of a socket, but it notices when the connection ends.
void ZmqListener::show_out(int descriptor) const {
  if (!bound_.contains(bound_place(descriptor))) return;
  // Resets a tcp connection. After a mere shutdown what still comes would go on being read.
  sockaddr nobody{};
  nobody.sa_family = AF_UNSPEC;
  if (::connect(descriptor, &nobody, sizeof nobody) != 0) ::shutdown(descriptor, SHUT_RDWR);
}

bool ZmqListener::watch(CarrierEvents& events, Clock::time_point now) {
  bool growing = false;
  std::vector<int> endless;
  for (auto& [descriptor, socket] : sockets_) {
    const auto found =
        socket.watch.look(descriptor, shared_.options.limits.max_frame_bytes, sweeps(), now);
    growing = growing || found == EndlessWatch::Finding::kGrowing;
    if (found == EndlessWatch::Finding::kEndless) endless.push_back(descriptor);
  }
  if (!endless.empty()) read_monitor(events);
  for (const int descriptor : endless) {
    const auto socket = sockets_.find(descriptor);
    if (socket == sockets_.end()) continue;
    const auto from = accepted_.find(socket->second.route);
    count_endless(shared_, from == accepted_.end() ? "unknown" : from->second.peer);
    show_out(descriptor);
  }
  may_have_data = may_have_data || growing;
  return growing;
}

void ZmqListener::lose(const Route& route, CarrierEvents& events, const char* why) {
  const auto found = accepted_.find(route);
  if (found == accepted_.end()) return;
  if (!found->second.ignored) {
    routes_.erase(found->second.connection);
    events.push_back({CarrierEvent::Kind::kClosed, found->second.connection, {}, true, why});
  }
  accepted_.erase(found);
  forget(route);
}

/// Messages of the route that are still on their way are not taken for a new connection.
void ZmqListener::forget(const Route& route) {
  if (!gone_.insert(route).second) return;
  gone_order_.push_back(route);
  if (gone_order_.size() <= kRememberedGone) return;
  gone_.erase(gone_order_.front());
  gone_order_.pop_front();
}

void ZmqListener::count_failure() {
  metrics::counter("moesaic_wire_handshake_failures_total").add();
  ++failures_;
  const auto now = Clock::now();
  if (now - failures_told_ < kTellEvery) return;
  failures_told_ = now;
  log(LogLevel::kWarn, "transport: handshakes failed so far: " + std::to_string(failures_) +
                           " (unknown keys, or no peers of ours)");
}

}  // namespace moesaic::transport
