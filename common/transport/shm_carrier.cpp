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
  bool next_notice(CarrierEvent& event) {
    if (watcher->has_notices())
      for (auto& notice : watcher->take_notices()) notices.push_back(std::move(notice));
    while (closing == 0 && !notices.empty()) {
      auto notice = std::move(notices.front());
      notices.pop_front();
      if (!notice.accepted && !targets.contains(notice.connection)) continue;  // closed by us
      if (notice.kind == CarrierEvent::Kind::kClosed) {
        if (auto* it = find(notice.connection)) {
          it->closing = true;
          it->detail = std::move(notice.detail);
          ++closing;
        }
        continue;
      }
      if (notice.kind == CarrierEvent::Kind::kOpened)
        open.push_back(std::make_unique<Open>(
            Open{notice.connection, ShmStream(std::move(notice.memory), limits)}));
      event.kind = notice.kind;
      event.connection = notice.connection;
      event.accepted = notice.accepted;
      event.detail = std::move(notice.detail);
      return true;
    }
    return false;
  }

  void count_malformed(ConnectionId connection) const {
    const auto target = targets.find(connection);
    metrics::counter("moesaic_wire_malformed_total",
                     {{"peer", "shm://" + (target == targets.end() ? "" : target->second)}})
        .add();
  }

  void end(Open& it, std::string detail, CarrierEvent& event) {
    event.kind = CarrierEvent::Kind::kClosed;
    event.connection = it.connection;
    event.detail = std::move(detail);
    drop(it.connection);
  }

  /// Takes one record of a connection. @return it made an event
  bool read_from(Open& it, CarrierEvent& event) {
    const auto read = it.stream.read(event.frame);
    if (!read) {  // nonsense in the ring: for us the peer has gone
      log(LogLevel::kWarn, "transport: " + read.error().what + "; connection closed");
      count_malformed(it.connection);
      watcher->drop(it.connection);
      end(it, read.error().what, event);
      return true;
    }
    if (*read == ShmStream::Read::kFrame) {
      event.kind = CarrierEvent::Kind::kFrame;
      event.connection = it.connection;
      return true;
    }
    if (*read == ShmStream::Read::kMalformed) count_malformed(it.connection);
    if (*read != ShmStream::Read::kNothing || !it.closing) return false;
    end(it, std::move(it.detail), event);
    return true;
  }

  /// Never waits. @return there is an event
  bool poll(CarrierEvent& event) {
    for (;;) {
      if (woken.load() && woken.exchange(false)) {
        event.kind = CarrierEvent::Kind::kWoken;
        return true;
      }
      if ((watcher->has_notices() || !notices.empty()) && next_notice(event)) return true;
      bool any = false;
      const auto count = open.size();
      for (std::size_t i = 0; i < count; ++i) {
        turn = turn + 1 < count ? turn + 1 : 0;
        auto& it = *open[turn];
        if (it.stream.has_waiting()) it.stream.flush();
        if (!it.closing && !it.stream.readable()) continue;
        if (read_from(it, event)) return true;
        any = true;
      }
      if (!any) return false;
    }
  }

  /// Far deadlines need no timer of their own: the watcher wakes us often enough to look again.
  Clock::time_point timer_for(Clock::time_point deadline) const {
    return watcher->nudges_before(deadline) ? Clock::time_point::max() : deadline;
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
  Result<CarrierEvent> result;
  for (;;) {
    if (impl_->poll(*result)) return result;
    impl_->doorbell.sleep([this] { return impl_->has_news(); },
                          [this, deadline] { return impl_->timer_for(deadline); });
    if (impl_->poll(*result)) return result;
    if (Clock::now() >= deadline) break;
  }
  return fail(Errc::kDeadlineExceeded, "no frame before the deadline");
}

void ShmCarrier::wake() {
  impl_->woken.store(true);
  impl_->doorbell.ring();
}

std::optional<CarrierEvent> ShmCarrier::poll() {
  std::optional<CarrierEvent> event(std::in_place);
  if (!impl_->poll(*event)) event.reset();
  return event;
}

int ShmCarrier::wait_fd() const { return impl_->doorbell.event().get(); }

bool ShmCarrier::arm() {
  return impl_->doorbell.arm([this] { return impl_->has_news(); });
}

void ShmCarrier::disarm() { impl_->doorbell.disarm(); }

Result<std::unique_ptr<Carrier>> make_shm_carrier(CarrierLimits limits) {
  return ShmCarrier::make(limits);
}

}  // namespace moesaic::transport
