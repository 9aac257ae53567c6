#include "common/transport/zmq_listener.hpp"

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

}  // namespace

ZmqListener::ZmqListener(ZmqShared& shared, bool curve, std::function<ConnectionId()> next_id)
    : ZmqSource(shared), curve_(curve), next_id_(std::move(next_id)) {
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
    bound.place += last.substr(last.rfind(':'));
  }
  bound.server_key = curve_ ? shared_.options.keys->own().public_key : "";
  return bound;
}

Result<void> ZmqListener::send(ConnectionId connection, zmq::message_t message,
                               CarrierEvents& events) {
  const auto found = routes_.find(connection);
  if (found == routes_.end()) return fail(Errc::kUnavailable, "the peer has gone");
  may_have_data = true;
  bool sent = send_to(found->second, message);
  if (!sent && errno == EAGAIN) {
    catch_up(socket_);
    sent = send_to(found->second, message);
  }
  if (sent) return {};
  if (errno == EAGAIN)
    return fail(Errc::kOverloaded, "queue of " +
                                       std::to_string(shared_.options.limits.queue_frames) +
                                       " frames to the peer is full");
  lose(Route(found->second), events, "connection lost");
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
  accepted_[route].ignored = true;
  zmq::message_t bye(kBye);
  static_cast<void>(send_to(route, bye));
  may_have_data = true;
}

ZmqSource::Read ZmqListener::read_data(CarrierEvents& events) {
  if (!message_.read(socket_, true, shared_.options.limits.max_frame_bytes)) {
    may_have_data = false;
    return Read::kNothing;
  }
  route_ = message_.route();
  const auto known = accepted_.find(route_);
  if (known == accepted_.end()) {
    return message_.is(kHi) && accept(route_, events) ? Read::kEvent : Read::kDropped;
  }
  const auto* from = &known->second;
  if (from->ignored) return Read::kDropped;
  auto frame = message_.frame();
  if (!frame) {
    count_malformed(shared_, from->peer);
    return Read::kDropped;
  }
  events.push_back({CarrierEvent::Kind::kFrame, from->connection, std::move(*frame)});
  return Read::kEvent;
}

/// Begins the connection of a route that says hi. @return whether there are events now
bool ZmqListener::accept(const Route& route, CarrierEvents& events) {
  if (gone_.contains(route)) return false;
  read_monitor(events);
  const auto descriptor = message_.descriptor();
  const auto alive = descriptors_.find(descriptor);
  const auto* user = message_.property("User-Id");
  const std::string peer = user != nullptr ? user : "";
  // Without its handler ZeroMQ would admit everybody; the handler's mark tells.
  const bool admitted = !curve_ || !peer.empty();
  if (!admitted || alive == descriptors_.end() ||
      (!alive->second.empty() && !is_newer(route, alive->second))) {
    forget(route);
    return !events.empty();
  }
  if (!alive->second.empty()) lose(Route(alive->second), events, "connection lost");
  descriptors_[descriptor] = route;
  auto& accepted = accepted_[route];
  accepted.descriptor = descriptor;
  accepted.peer = peer.empty() ? "unknown" : peer;
  if (routes_.size() >= shared_.options.limits.max_connections) {
    tell_full(accepted.peer);
    dismiss(route);
    return !events.empty();
  }
  accepted.connection = next_id_();
  routes_[accepted.connection] = route;
  events.push_back({CarrierEvent::Kind::kOpened, accepted.connection, {}, true, {}, peer});
  return true;
}

void ZmqListener::tell_full(const std::string& peer) {
  const auto now = Clock::now();
  if (now - full_told_ < kTellEvery) return;
  full_told_ = now;
  log(LogLevel::kWarn, "transport: " + peer + " refused: " + std::to_string(routes_.size()) +
                           " connections are the limit");
}

void ZmqListener::read_monitor(CarrierEvents& events) {
  while (const auto event = monitor_->next()) {
    switch (event->kind) {
      case ZMQ_EVENT_ACCEPTED:
        descriptors_[event->value].clear();
        break;
      case ZMQ_EVENT_DISCONNECTED: {
        const auto found = descriptors_.find(event->value);
        if (found == descriptors_.end()) break;
        const auto route = std::move(found->second);
        descriptors_.erase(found);
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
