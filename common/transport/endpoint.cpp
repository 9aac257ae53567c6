#include "common/transport/endpoint.hpp"

#include <algorithm>
#include <deque>
#include <optional>
#include <unordered_map>

#include "common/base/log.hpp"
#include "common/metrics/metrics.hpp"
#include "common/transport/bytes.hpp"
#include "common/transport/frame_kind.hpp"
#include "common/transport/handshake.hpp"
#include "common/transport/peer_metrics.hpp"
#include "common/transport/wire.hpp"

namespace moesaic::transport {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kHandshakeTime{5};  // for a hello or a welcome to come
constexpr std::chrono::seconds kBackOff{1};        // after a refusal
constexpr auto kNever = Clock::time_point::max();
constexpr std::size_t kMaxIdentities = 4096;  // whose incarnation is remembered

struct Peer {
  enum class State : unsigned char {
    kAway,      // connector: not connected
    kGreeting,  // connector: hello sent or due; listener: hello awaited
    kUp,
  };
  PeerId id = 0;  // 0: a listener's, before its hello
  ConnectionId connection = 0;
  bool connector = false;
  State state = State::kAway;
  Clock::time_point timer = kNever;    // kGreeting: (next) hello or end
  Clock::time_point not_before{};      // connector: the back-off after a refusal
  std::string key_owner;               // of this connection
  std::string told;                    // the last kDown of a connector that did not come up
  Identity identity;                   // kUp
  std::uint64_t identity_id = 0;       // kUp
  std::uint16_t credits = 0;           // kUp, connector
  std::vector<std::uint64_t> open;     // sequences of unanswered questions
  std::optional<std::uint64_t> timed;  // sequence of the last probe or heartbeat
  Clock::time_point timed_at{};
  std::optional<PeerMetrics> metrics;  // kUp
};

Frame bare_frame(FrameType type) {
  Frame frame;
  frame.type = type;
  return frame;
}

Frame text_frame(Errc code, const std::string& text) {
  auto frame = bare_frame(FrameType::kFailure);
  frame.code = static_cast<std::uint8_t>(code);
  frame.tensors.emplace_back(DType::kU8,
                             std::vector<std::int64_t>{static_cast<std::int64_t>(text.size())});
  std::copy(text.begin(), text.end(), frame.tensors[0].as<char>().begin());
  return frame;
}

/// A peer's text, fit for a log line.
std::string text_of(const Frame& frame) {
  if (frame.tensors.empty() || frame.tensors[0].dtype != DType::kU8) return "refused";
  const auto text = frame.tensors[0].as<char>();
  std::string out(text.data(), std::min<std::size_t>(text.size(), 512));
  std::replace_if(
      out.begin(), out.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return out;
}

}  // namespace

std::uint64_t Identity::id() const {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const auto c : full_name(*this))
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

struct Endpoint::Impl {
  Impl(EndpointConfig given, std::unique_ptr<Carrier> with)
      : config(std::move(given)), self_id(config.self.id()), carrier(std::move(with)) {}

  EndpointConfig config;
  std::uint64_t self_id;
  std::unique_ptr<Carrier> carrier;
  PeerId last_peer = 0;
  std::unordered_map<ConnectionId, Peer> peers;
  std::unordered_map<PeerId, Peer*> by_id;  // into `peers`, which keeps its elements in place
  std::unordered_map<std::uint64_t, std::uint32_t> incarnations;  // the highest seen, by identity
  std::deque<Event> events;  // made while something else was handled
  Clock::time_point next_timer = kNever;

  Peer* find(PeerId id) {
    const auto it = by_id.find(id);
    return it == by_id.end() ? nullptr : it->second;
  }

  Result<void> send(ConnectionId connection, Frame frame) {
    frame.sender = self_id;
    frame.incarnation = config.self.incarnation;
    return carrier->send(connection, std::move(frame));
  }

  void set_timer(Peer& peer, Clock::time_point when) {
    peer.timer = when;
    next_timer = std::min(next_timer, when);
  }

  void tell_down(Peer& peer, std::string detail) {
    Event event{.kind = Event::Kind::kDown, .peer = peer.id};
    event.detail = std::move(detail);
    events.push_back(std::move(event));
  }

  /// A connector that did not come up: told once per reason.
  void tell_refused(Peer& peer, std::string detail) {
    if (peer.told == detail) return;
    peer.told = detail;
    tell_down(peer, std::move(detail));
  }

  void end_up(Peer& peer, Peer::State next) {
    peer.state = next;
    peer.open.clear();
    peer.timed.reset();
    peer.metrics.reset();
    peer.told.clear();
    if (!peer.connector) {
      by_id.erase(peer.id);
      peer.id = 0;
    }
  }

  /// The peer no longer serves or asks: it has gone, or begins anew on the same connection.
  void go_down(Peer& peer, Peer::State next, std::string detail) {
    if (peer.state == Peer::State::kUp) {
      tell_down(peer, std::move(detail));
      end_up(peer, next);
    }
    peer.state = next;
  }

  void send_hello(Peer& peer) {
    const auto now = Clock::now();
    if (now < peer.not_before) return set_timer(peer, peer.not_before);
    // When the queue is full the timer tries again.
    static_cast<void>(send(peer.connection,
                           make_message(FrameType::kHello, Hello{kWireVersion, 0, config.self})));
    peer.timed_at = now;
    set_timer(peer, now + kHandshakeTime);
  }

  void come_up(Peer& peer, Hello hello) {
    peer.state = Peer::State::kUp;
    peer.timer = kNever;
    find_next_timer();
    peer.told.clear();
    peer.credits = hello.credits;
    peer.identity = std::move(hello.identity);
    peer.identity_id = peer.identity.id();
    if (!peer.connector) {
      peer.id = ++last_peer;
      by_id[peer.id] = &peer;
    }
    if (incarnations.size() >= kMaxIdentities) forget_identities();
    auto& highest = incarnations[peer.identity_id];
    highest = std::max(highest, peer.identity.incarnation);
    peer.metrics.emplace(full_name(config.self), full_name(peer.identity), !peer.key_owner.empty());
    Event event{.kind = Event::Kind::kUp, .peer = peer.id};
    event.identity = peer.identity;
    events.push_back(std::move(event));
  }

  /// Keeps the incarnations of peers that are up.
  void forget_identities() {
    std::erase_if(incarnations, [this](const auto& known) {
      return std::none_of(peers.begin(), peers.end(), [&known](const auto& it) {
        return it.second.state == Peer::State::kUp && it.second.identity_id == known.first;
      });
    });
  }

  std::string refusal_of(const Peer& peer, const Hello& hello) const {
    const auto seen = incarnations.find(hello.identity.id());
    return refusal(hello, {.self = &config.self,
                           .accepted_roles = peer.connector ? nullptr : &config.accepted_roles,
                           .key_owner = peer.key_owner,
                           .min_incarnation = seen == incarnations.end() ? 0 : seen->second});
  }

  /// @return the greeting, or an error whose text is a line for the other side
  Result<Hello> check_greeting(const Peer& peer, const Frame& frame) {
    MOESAIC_TRY(auto hello, read_hello(frame));
    if (frame.sender != hello.identity.id() || frame.incarnation != hello.identity.incarnation)
      return fail(Errc::kCorrupt, "hello: the frame is another sender's");
    if (auto text = refusal_of(peer, hello); !text.empty())
      return fail(Errc::kInvalidArgument, std::move(text));
    return hello;
  }

  void on_hello(Peer& peer, const Frame& frame) {
    go_down(peer, Peer::State::kGreeting, "it greets again");
    auto hello = check_greeting(peer, frame);
    if (!hello) {
      metrics::counter("moesaic_wire_handshake_failures_total").add();
      log(LogLevel::kWarn, "transport: " + hello.error().what);
      // Sent or not: the connection ends when no better hello comes in time.
      static_cast<void>(send(peer.connection, text_frame(hello.error().code, hello.error().what)));
      return set_timer(peer, Clock::now() + kHandshakeTime);
    }
    const auto sent =
        send(peer.connection,
             make_message(FrameType::kWelcome, Hello{kWireVersion, config.credits, config.self}));
    if (!sent) return set_timer(peer, Clock::now() + kHandshakeTime);
    come_up(peer, std::move(*hello));
  }

  void refused(Peer& peer, std::string detail) {
    peer.not_before = Clock::now() + kBackOff;
    set_timer(peer, peer.not_before);
    tell_refused(peer, std::move(detail));
  }

  void on_greeting_answer(Peer& peer, const Frame& frame) {
    if (frame.type == FrameType::kFailure) return refused(peer, text_of(frame));
    if (frame.type != FrameType::kWelcome) return;
    auto hello = check_greeting(peer, frame);
    if (!hello) {
      metrics::counter("moesaic_wire_handshake_failures_total").add();
      static_cast<void>(send(peer.connection, bare_frame(FrameType::kGoodbye)));
      return refused(peer, hello.error().what);
    }
    const auto waited = Clock::now() - peer.timed_at;
    come_up(peer, std::move(*hello));
    peer.metrics->round_trip(waited);
  }

  /// True: the frame is for the caller.
  bool on_up_frame(Peer& peer, const Frame& frame) {
    if (frame.sender != peer.identity_id || frame.incarnation > peer.identity.incarnation) {
      metrics::counter("moesaic_wire_malformed_total", {{"peer", full_name(peer.identity)}}).add();
      return false;
    }
    if (frame.incarnation < incarnations.at(peer.identity_id)) {
      if (is_question(frame.type)) {
        auto stale = bare_frame(FrameType::kStale);
        stale.attempt = frame.attempt;
        stale.sequence = frame.sequence;
        stale.request = frame.request;
        static_cast<void>(send(peer.connection, std::move(stale)));  // full: it asks again
      }
      return false;
    }
    if (frame.type == FrameType::kWelcome) return false;
    if (frame.type == FrameType::kGoodbye) {
      go_down(peer, peer.connector ? Peer::State::kGreeting : Peer::State::kAway,
              "it said goodbye");
      if (peer.connector) {
        peer.not_before = Clock::now() + kBackOff;
        set_timer(peer, peer.not_before);
      }
      return false;
    }
    if (is_answer(frame.type)) {
      const auto open = std::find(peer.open.begin(), peer.open.end(), frame.sequence);
      if (open != peer.open.end()) {
        *open = peer.open.back();
        peer.open.pop_back();
      }
    }
    if (peer.timed == frame.sequence &&
        (frame.type == FrameType::kProbed || frame.type == FrameType::kLease)) {
      peer.metrics->round_trip(Clock::now() - peer.timed_at);
      peer.timed.reset();
    }
    return true;
  }

  void on_opened(const CarrierEvent& event) {
    auto& peer = peers[event.connection];
    go_down(peer, Peer::State::kGreeting, "it connected again");
    peer.connection = event.connection;
    peer.key_owner = event.key_owner;
    if (peer.connector) return send_hello(peer);
    set_timer(peer, Clock::now() + kHandshakeTime);
  }

  void on_closed(Peer& peer, std::string detail) {
    go_down(peer, Peer::State::kAway, std::move(detail));
    peer.timer = kNever;
    if (!peer.connector) peers.erase(peer.connection);
  }

  /// @return who sent the frame, if the caller is to have it
  Peer* on_frame(CarrierEvent& event) {
    const auto it = peers.find(event.connection);
    if (it == peers.end()) return nullptr;
    auto& peer = it->second;
    if (!peer.connector && event.frame.type == FrameType::kHello) {
      on_hello(peer, event.frame);
    } else if (peer.state == Peer::State::kUp) {
      return on_up_frame(peer, event.frame) ? &peer : nullptr;
    } else if (peer.connector && peer.state == Peer::State::kGreeting) {
      on_greeting_answer(peer, event.frame);
    }
    return nullptr;
  }

  void on_change(CarrierEvent& event) {
    if (event.kind == CarrierEvent::Kind::kWoken) {
      events.push_back({.kind = Event::Kind::kWoken});
      return;
    }
    if (event.kind == CarrierEvent::Kind::kOpened) return on_opened(event);
    const auto it = peers.find(event.connection);
    if (it == peers.end()) return;
    if (event.kind == CarrierEvent::Kind::kClosed) {
      on_closed(it->second, std::move(event.detail));
    } else {
      tell_refused(it->second, std::move(event.detail));
    }
  }

  void run_timers() {
    const auto now = Clock::now();
    if (now < next_timer) return;
    std::vector<ConnectionId> due;
    for (const auto& [connection, peer] : peers)
      if (peer.timer <= now) due.push_back(connection);
    for (const auto connection : due) {
      auto& peer = peers.at(connection);
      peer.timer = kNever;
      if (peer.connector) {
        send_hello(peer);
      } else {  // said nothing that fits
        carrier->close(connection);
        peers.erase(connection);
      }
    }
    find_next_timer();
  }

  /// Without one, receiving needs neither the clock nor a timer.
  void find_next_timer() {
    next_timer = kNever;
    for (const auto& [connection, peer] : peers) next_timer = std::min(next_timer, peer.timer);
  }
};

Endpoint::Endpoint(EndpointConfig config, std::unique_ptr<Carrier> carrier)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(carrier))) {}

Endpoint::~Endpoint() {
  for (auto& [connection, peer] : impl_->peers)
    if (peer.state == Peer::State::kUp)  // as a courtesy: the carrier's end tells as much
      static_cast<void>(impl_->send(connection, bare_frame(FrameType::kGoodbye)));
}

Result<Address> Endpoint::listen(const Address& address) { return impl_->carrier->listen(address); }

Result<PeerId> Endpoint::connect(const Address& address) {
  MOESAIC_TRY(const auto connection, impl_->carrier->connect(address));
  auto& peer = impl_->peers[connection];
  peer.id = ++impl_->last_peer;
  peer.connection = connection;
  peer.connector = true;
  impl_->by_id[peer.id] = &peer;
  return peer.id;
}

void Endpoint::close(PeerId id) {
  auto* peer = impl_->find(id);
  if (peer == nullptr) return;
  const auto connection = peer->connection;
  if (peer->state == Peer::State::kUp)
    static_cast<void>(impl_->send(connection, bare_frame(FrameType::kGoodbye)));
  impl_->carrier->close(connection);
  impl_->by_id.erase(id);
  impl_->peers.erase(connection);
  std::erase_if(impl_->events, [id](const Event& event) { return event.peer == id; });
}

Result<void> Endpoint::send(PeerId id, Frame frame) {
  auto* peer = impl_->find(id);
  if (peer == nullptr || peer->state != Peer::State::kUp)
    return fail(Errc::kUnavailable, "peer " + std::to_string(id) + " is not up");
  const bool question = is_question(frame.type);
  const bool counted = question && peer->connector;
  if (counted && peer->open.size() >= peer->credits) {
    peer->metrics->blocked(false);
    return fail(Errc::kOverloaded, full_name(peer->identity) + ": all of its " +
                                       std::to_string(peer->credits) + " credits are in use");
  }
  const auto type = frame.type;
  const auto sequence = frame.sequence;
  const auto bytes = encoded_size(frame);
  if (auto sent = impl_->send(peer->connection, std::move(frame)); !sent) {
    if (sent.error().code == Errc::kOverloaded) peer->metrics->blocked(true);
    return fail(full_name(peer->identity), sent.error());
  }
  if (counted) peer->open.push_back(sequence);
  if (type == FrameType::kProbe || type == FrameType::kHeartbeat) {
    peer->timed = sequence;
    peer->timed_at = Clock::now();
  }
  peer->metrics->sent(type, bytes);
  return {};
}

Result<Event> Endpoint::receive(Clock::time_point deadline) {
  auto& impl = *impl_;
  for (;;) {
    if (!impl.events.empty()) {
      Event event = std::move(impl.events.front());
      impl.events.pop_front();
      return event;
    }
    if (impl.next_timer != kNever) impl.run_timers();
    auto event = impl.carrier->receive(std::min(deadline, impl.next_timer));
    if (!event) {
      if (event.error().code == Errc::kDeadlineExceeded && impl.next_timer < deadline) continue;
      return tl::make_unexpected(std::move(event).error());
    }
    if (event->kind != CarrierEvent::Kind::kFrame) {
      impl.on_change(*event);
    } else if (const auto* from = impl.on_frame(*event)) {
      Result<Event> out(Event{.kind = Event::Kind::kFrame, .peer = from->id});
      out->frame = std::move(event->frame);
      return out;
    }
  }
}

void Endpoint::wake() { impl_->carrier->wake(); }

const Identity* Endpoint::identity(PeerId id) const {
  const auto* peer = impl_->find(id);
  return peer != nullptr && peer->state == Peer::State::kUp ? &peer->identity : nullptr;
}

const EndpointConfig& Endpoint::config() const { return impl_->config; }

}  // namespace moesaic::transport
