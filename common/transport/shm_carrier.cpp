#include "common/transport/shm_carrier.hpp"

#include <atomic>
#include <deque>
#include <map>
#include <vector>

#include "common/base/log.hpp"
#include "common/metrics/metrics.hpp"
#include "common/transport/carriers.hpp"
#include "common/transport/shm_stream.hpp"
#include "common/transport/shm_watcher.hpp"

namespace moesaic::transport {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kRingBytes = std::size_t{4} << 20;  // touched as far as it is used

CarrierEvent make_event(CarrierEvent::Kind kind, ConnectionId connection, std::string detail = {}) {
  CarrierEvent event{.kind = kind, .connection = connection};
  event.detail = std::move(detail);
  return event;
}

Result<void> check_scheme(const Address& address) {
  if (address.scheme == Address::Scheme::kShm) return {};
  return fail(Errc::kInvalidArgument, to_string(address) + ": not a shared-memory address");
}

}  // namespace

struct ShmCarrier::Impl {
  struct Open {
    ConnectionId connection = 0;
    ShmStream stream;
    bool closing = false;  // the peer has gone: what is in the ring still counts
    std::string detail{};
  };

  explicit Impl(CarrierLimits given) : limits(given) {}

  CarrierLimits limits;
  Doorbell doorbell;
  std::unique_ptr<ShmWatcher> watcher;  // rings the doorbell: destroyed before it
  std::atomic<bool> woken{false};
  std::map<ConnectionId, std::string> targets;  // connections made: where to
  std::vector<std::unique_ptr<Open>> open;
  std::size_t turn = 0;  // of `open`: who is read next
  std::deque<ShmWatcher::Notice> notices;
  std::size_t closing = 0;  // of `open`

  Open* find(ConnectionId connection) {
    for (const auto& it : open)
      if (it->connection == connection) return it.get();
    return nullptr;
  }

  void drop(ConnectionId connection) {
    std::erase_if(open, [&](const auto& it) {
      if (it->connection == connection && it->closing) --closing;
      return it->connection == connection;
    });
    turn = 0;
  }

  /// The next change of a connection. While the ring of a closing one has frames, the changes after
  /// it wait.
  std::optional<CarrierEvent> next_notice() {
    if (watcher->has_notices())
      for (auto& notice : watcher->take_notices()) notices.push_back(std::move(notice));
    while (closing == 0 && !notices.empty()) {
      auto notice = std::move(notices.front());
      notices.pop_front();
      if (!notice.accepted && !targets.contains(notice.connection)) continue;  // closed by us
      switch (notice.kind) {
        case CarrierEvent::Kind::kOpened: {
          open.push_back(std::make_unique<Open>(
              Open{notice.connection, ShmStream(std::move(notice.memory), limits)}));
          auto event = make_event(notice.kind, notice.connection);
          event.accepted = notice.accepted;
          return event;
        }
        case CarrierEvent::Kind::kRefused:
          return make_event(notice.kind, notice.connection, std::move(notice.detail));
        default:
          if (auto* it = find(notice.connection)) {
            it->closing = true;
            it->detail = std::move(notice.detail);
            ++closing;
          }
      }
    }
    return std::nullopt;
  }

  void count_malformed(ConnectionId connection) const {
    const auto target = targets.find(connection);
    metrics::counter("moesaic_wire_malformed_total",
                     {{"peer", "shm://" + (target == targets.end() ? "" : target->second)}})
        .add();
  }

  /// The peer writes nonsense into the ring: for us it has gone.
  CarrierEvent give_up(Open& it, const Error& error) {
    const auto connection = it.connection;
    log(LogLevel::kWarn, "transport: " + error.what + "; connection closed");
    count_malformed(connection);
    drop(connection);
    watcher->drop(connection);
    return make_event(CarrierEvent::Kind::kClosed, connection, error.what);
  }

  /// Takes one record of a connection; it may be no event yet.
  std::optional<CarrierEvent> read_from(Open& it) {
    auto read = it.stream.read();
    if (!read) return give_up(it, read.error());
    if (read->kind == ShmStream::Read::Kind::kFrame) {
      auto event = make_event(CarrierEvent::Kind::kFrame, it.connection);
      event.frame = std::move(read->frame);
      return event;
    }
    if (read->kind == ShmStream::Read::Kind::kMalformed) count_malformed(it.connection);
    if (read->kind != ShmStream::Read::Kind::kNothing || !it.closing) return std::nullopt;
    auto event = make_event(CarrierEvent::Kind::kClosed, it.connection, std::move(it.detail));
    drop(it.connection);
    return event;
  }

  std::optional<CarrierEvent> poll() {
    for (;;) {
      if (woken.load() && woken.exchange(false)) return make_event(CarrierEvent::Kind::kWoken, 0);
      if (auto event = next_notice()) return event;
      for (const auto& it : open)
        if (it->stream.has_waiting()) it->stream.flush();
      bool any = false;
      const auto count = open.size();
      for (std::size_t i = 0; i < count; ++i) {
        turn = turn + 1 < count ? turn + 1 : 0;
        auto& it = *open[turn];
        if (!it.closing && !it.stream.readable()) continue;
        if (auto event = read_from(it)) return event;
        any = true;
      }
      if (!any) return std::nullopt;
    }
  }

  bool has_news() const {
    if (woken.load() || watcher->has_notices()) return true;
    for (const auto& it : open)
      if (it->stream.readable()) return true;
    return false;
  }
};

ShmCarrier::ShmCarrier(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

ShmCarrier::~ShmCarrier() = default;

Result<std::unique_ptr<ShmCarrier>> ShmCarrier::make(CarrierLimits limits) {
  auto impl = std::make_unique<Impl>(limits);
  MOESAIC_TRY(impl->doorbell, Doorbell::make());
  MOESAIC_TRY(impl->watcher, ShmWatcher::start(limits, kRingBytes, impl->doorbell));
  return std::unique_ptr<ShmCarrier>(new ShmCarrier(std::move(impl)));
}

Result<Address> ShmCarrier::listen(const Address& address) {
  MOESAIC_CHECK(check_scheme(address));
  MOESAIC_CHECK(impl_->watcher->listen(address.place));
  return address;
}

Result<ConnectionId> ShmCarrier::connect(const Address& address) {
  MOESAIC_CHECK(check_scheme(address));
  const auto connection = impl_->watcher->connect(address.place);
  impl_->targets.emplace(connection, address.place);
  return connection;
}

void ShmCarrier::close(ConnectionId connection) {
  impl_->drop(connection);
  impl_->targets.erase(connection);
  impl_->watcher->close(connection);
}

Result<void> ShmCarrier::send(ConnectionId connection, Frame frame) {
  auto* open = impl_->find(connection);
  if (open == nullptr || open->closing)
    return fail(Errc::kUnavailable, "connection " + std::to_string(connection) + " is not open");
  return open->stream.send(std::move(frame));
}

Result<CarrierEvent> ShmCarrier::receive(Clock::time_point deadline) {
  for (bool late = false;; late = Clock::now() >= deadline) {
    if (auto event = impl_->poll()) return std::move(*event);
    if (late) return fail(Errc::kDeadlineExceeded, "no frame before the deadline");
    impl_->doorbell.sleep(deadline, [this] { return impl_->has_news(); });
  }
}

void ShmCarrier::wake() {
  impl_->woken.store(true);
  impl_->doorbell.ring();
}

std::optional<CarrierEvent> ShmCarrier::poll() { return impl_->poll(); }

int ShmCarrier::wait_fd() const { return impl_->doorbell.event().get(); }

bool ShmCarrier::arm() {
  return impl_->doorbell.arm([this] { return impl_->has_news(); });
}

void ShmCarrier::disarm() { impl_->doorbell.disarm(); }

Result<std::unique_ptr<Carrier>> make_shm_carrier(CarrierLimits limits) {
  return ShmCarrier::make(limits);
}

}  // namespace moesaic::transport
