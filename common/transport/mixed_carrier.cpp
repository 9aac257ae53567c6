#include <atomic>

#include "common/transport/carriers.hpp"
#include "common/transport/shm_carrier.hpp"
#include "common/transport/zmq_carrier.hpp"

namespace moesaic::transport {
namespace {

using Clock = std::chrono::steady_clock;

enum class Side : ConnectionId { kShm = 0, kZmq = 1 };

/// Shared memory and ZeroMQ behind one `receive`. While only one of them is in use the thread
/// sleeps in that one's own way.
class MixedCarrier final : public Carrier {
 public:
  MixedCarrier(std::unique_ptr<ShmCarrier> shm, std::unique_ptr<ZmqCarrier> zmq)
      : shm_(std::move(shm)), zmq_(std::move(zmq)) {}

  Result<Address> listen(const Address& address) override {
    MOESAIC_TRY(const auto side, side_of(address));
    return carrier(side).listen(address);
  }

  Result<ConnectionId> connect(const Address& address) override {
    MOESAIC_TRY(const auto side, side_of(address));
    MOESAIC_TRY(const auto connection, carrier(side).connect(address));
    return outer(connection, side);
  }

  void close(ConnectionId connection) override {
    carrier(side_of(connection)).close(inner(connection));
  }

  Result<void> send(ConnectionId connection, Frame frame) override {
    return carrier(side_of(connection)).send(inner(connection), std::move(frame));
  }

  Result<CarrierEvent> receive(Clock::time_point deadline) override {
    while (true) {
      MOESAIC_TRY(auto next, next_event(deadline));
      if (next.event.kind == CarrierEvent::Kind::kWoken) {
        if (!woken_.exchange(false)) continue;  // the other side's half of a wake already told
      } else {
        next.event.connection = outer(next.event.connection, next.side);
      }
      return std::move(next.event);
    }
  }

  void wake() override {
    woken_ = true;
    shm_->wake();
    zmq_->wake();
  }

 private:
  struct Next {
    CarrierEvent event;
    Side side{};
  };

  static ConnectionId outer(ConnectionId connection, Side side) {
    return connection << 1U | static_cast<ConnectionId>(side);
  }
  static ConnectionId inner(ConnectionId connection) { return connection >> 1U; }
  static Side side_of(ConnectionId connection) { return static_cast<Side>(connection & 1U); }

  Result<Side> side_of(const Address& address) {
    if (address.scheme == Address::Scheme::kInProcess)
      return fail(Errc::kUnsupported, to_string(address) + ": not between processes");
    if (address.scheme != Address::Scheme::kShm) return Side::kZmq;
    shm_used_ = true;
    return Side::kShm;
  }

  Carrier& carrier(Side side) { return side == Side::kShm ? static_cast<Carrier&>(*shm_) : *zmq_; }

  std::optional<CarrierEvent> take(Side side) {
    return side == Side::kShm ? shm_->poll() : zmq_->take();
  }

  Result<Next> next_event(Clock::time_point deadline) {
    if (zmq_->idle() || !shm_used_) {
      const auto side = zmq_->idle() ? Side::kShm : Side::kZmq;
      MOESAIC_TRY(auto event, carrier(side).receive(deadline));
      return Next{std::move(event), side};
    }
    for (bool late = false;; late = Clock::now() >= deadline) {
      first_ = first_ == Side::kShm ? Side::kZmq : Side::kShm;
      const auto second = first_ == Side::kShm ? Side::kZmq : Side::kShm;
      for (const auto side : {first_, second})
        if (auto event = take(side)) return Next{std::move(*event), side};
      if (late) return fail(Errc::kDeadlineExceeded, "no event before the deadline");
      // Also when the time is over: it is how sockets are asked.
      if (shm_->arm()) zmq_->wait(deadline, shm_->wait_fd());
      shm_->disarm();
    }
  }

  std::unique_ptr<ShmCarrier> shm_;
  std::unique_ptr<ZmqCarrier> zmq_;
  bool shm_used_ = false;
  Side first_ = Side::kShm;  ///< asked first; they take turns
  std::atomic<bool> woken_ = false;
};

}  // namespace

Result<std::unique_ptr<Carrier>> make_carrier(ZmqOptions options) {
  MOESAIC_TRY(auto shm, ShmCarrier::make(options.limits));
  MOESAIC_TRY(auto zmq, ZmqCarrier::make(std::move(options)));
  return std::make_unique<MixedCarrier>(std::move(shm), std::move(zmq));
}

}  // namespace moesaic::transport
