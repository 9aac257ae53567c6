#include "common/transport/zmq_connector.hpp"

#include <algorithm>

#include "common/metrics/metrics.hpp"

namespace moesaic::transport {
namespace {

using namespace std::chrono_literals;

constexpr int kLingerMs = 50;  // for a goodbye
constexpr auto kShortestWait = 20ms;
constexpr auto kLongestWait = 200ms;
constexpr auto kWaitAfterBye = 200ms;
constexpr auto kStable = 1s;
constexpr auto kRefusedEvery = 1s;
// A handshake that ends sooner after its start was ended by the other side, not by the clock.
constexpr auto kHandshakeEnded = 1s;

}  // namespace

ZmqConnector::ZmqConnector(ZmqShared& shared, ConnectionId id, Address address,
                           std::string key_owner)
    : ZmqSource(shared),
      id_(id),
      address_(std::move(address)),
      key_owner_(std::move(key_owner)),
      peer_(key_owner_.empty() ? to_string(address_) : key_owner_),
      window_(shared.options.limits.queue_frames) {}

ZmqConnector::~ZmqConnector() { drop_socket(open_ ? kLingerMs : 0); }

Result<void> ZmqConnector::open() {
  try {
    make_socket(zmq::socket_type::dealer);
    connect();
    open_at_ = Clock::time_point::max();
    return {};
  } catch (const zmq::error_t& error) {
    drop_socket(0);
    open_at_ = Clock::now() + kLongestWait;
    return fail(Errc::kIo, to_string(address_) + ": cannot connect: " + error.what());
  }
}

void ZmqConnector::connect() {
  if (uses_curve(shared_.options, address_)) {
    const auto& own = shared_.options.keys->own();
    socket_.set(zmq::sockopt::curve_serverkey, address_.server_key);
    socket_.set(zmq::sockopt::curve_publickey, own.public_key);
    socket_.set(zmq::sockopt::curve_secretkey, own.secret_key);
  }
  socket_.connect(endpoint_of(address_));
  // Waits in the queue until there is a connection.
  socket_.send(zmq::buffer(kHi), zmq::send_flags::dontwait);
  // ZeroMQ signals only to a reader that found nothing before.
  may_have_data = true;
}

Result<void> ZmqConnector::send(zmq::message_t message, CarrierEvents& events) {
  may_have_data = open_;
  // The peer may have told that there is room.
  while (open_ && window_.full() && events.size() < shared_.options.limits.queue_frames &&
         read_data(events) != Read::kNothing) {
  }
  if (!open_) return fail(Errc::kUnavailable, to_string(address_) + ": not connected");
  may_have_data = true;
  const auto send = [&] {
    const bool sent = send_message(socket_, message);
    if (sent) window_.sent();
    return sent;
  };
  if (!window_.full()) {
    if (send()) return {};
    catch_up(socket_);
    if (send()) return {};
  }
  return fail(Errc::kOverloaded, to_string(address_) + ": queue of " +
                                     std::to_string(shared_.options.limits.queue_frames) +
                                     " frames is full");
}

ZmqSource::Read ZmqConnector::read_data(CarrierEvents& events) {
  if (!open_) read_monitor(events);  // what is read may be the first words of the peer
  if (!has_socket()) return Read::kEvent;
  if (!read_message(false)) return Read::kNothing;
  watch_.heard();
  if (!open_) return Read::kDropped;
  if (message_.is(kBye)) {
    lose(events, "the listener closed the connection", kWaitAfterBye);
    return Read::kEvent;
  }
  if (const auto taken = message_.taken()) {
    window_.acknowledged(*taken);
    return Read::kDropped;
  }
  take_one();
  auto frame = message_.frame();
  if (!frame) {
    count_malformed(shared_, peer_);
    return Read::kDropped;
  }
  events.push_back({CarrierEvent::Kind::kFrame, id_, std::move(*frame)});
  return Read::kEvent;
}

/// A frame has left the queue; tells the peer so now and then.
void ZmqConnector::take_one() {
  window_.took();
  const auto due = window_.due();
  if (!due) return;
  auto message = taken_message(*due);
  if (send_message(socket_, message)) window_.told();  // else with the next one
}

bool ZmqConnector::watch(CarrierEvents& events, Clock::time_point now) {
  if (!open_) return false;
  const auto found =
      watch_.look(descriptor_, shared_.options.limits.max_frame_bytes, sweeps(), now);
  if (found == EndlessWatch::Finding::kEndless) {
    count_endless(shared_, peer_);
    lose(events, "the listener sends a message without end", kWaitAfterBye);
    return false;
  }
  const bool growing = found == EndlessWatch::Finding::kGrowing;
  may_have_data = may_have_data || growing;
  return growing;
}

void ZmqConnector::read_monitor(CarrierEvents& events) {
  while (monitor_) {
    const auto event = monitor_->next();
    if (!event) return;
    switch (event->kind) {
      case ZMQ_EVENT_CONNECTED:
        connected_ = Clock::now();
        descriptor_ = event->value;
        break;
      case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        open_ = true;
        window_ = FrameWindow(shared_.options.limits.queue_frames);
        watch_ = {};
        opened_ = Clock::now();
        events.push_back({CarrierEvent::Kind::kOpened, id_, {}, false, {}, key_owner_});
        break;
      case ZMQ_EVENT_DISCONNECTED:
        // Before the handshake ZeroMQ itself tries again.
        if (open_) lose(events, "connection lost", kShortestWait);
        break;
      case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        refuse(events, "the listener does not admit our key");
        break;
      case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        refuse(events, "the listener does not have the key we expect, or is no peer of ours");
        break;
      case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        if (uses_curve(shared_.options, address_) && Clock::now() - connected_ < kHandshakeEnded)
          refuse(events,
                 "closed during the handshake: the listener has another key than we expect");
        break;
      default:
        break;
    }
  }
}

void ZmqConnector::lose(CarrierEvents& events, std::string why, std::chrono::milliseconds least) {
  open_ = false;
  const auto now = Clock::now();
  wait_ = now - opened_ > kStable ? least : std::clamp(wait_ * 2, least, kLongestWait + 0ms);
  open_at_ = now + wait_;
  drop_socket(0);
  events.push_back(
      {CarrierEvent::Kind::kClosed, id_, {}, false, to_string(address_) + ": " + std::move(why)});
}

void ZmqConnector::refuse(CarrierEvents& events, std::string why) {
  const auto now = Clock::now();
  if (now - refused_ < kRefusedEvery) return;
  refused_ = now;
  metrics::counter("moesaic_wire_handshake_failures_total").add();
  events.push_back(
      {CarrierEvent::Kind::kRefused, id_, {}, false, to_string(address_) + ": " + std::move(why)});
}

}  // namespace moesaic::transport
