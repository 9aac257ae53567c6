#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <unordered_map>

#include "common/transport/in_process.hpp"
#include "common/transport/wire.hpp"

namespace moesaic::transport {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kRetry{50};

struct Pipe;

struct Item {
  CarrierEvent event;
  std::shared_ptr<Pipe> pipe;  // of a kOpened
};

/// Where the events of one carrier wait for its thread.
struct Inbox {
  std::mutex mutex;
  std::condition_variable filled;
  std::deque<Item> items;                                 // under mutex
  std::unordered_map<ConnectionId, std::size_t> waiting;  // frames in items, under mutex
  ConnectionId last_connection = 0;                       // under mutex
  std::size_t open = 0;                                   // accepted connections, under mutex
  bool woken = false;                                     // under mutex
  bool gone = false;                                      // its carrier; under mutex

  void push(Item item) {
    {
      const std::lock_guard lock(mutex);
      items.push_back(std::move(item));
    }
    filled.notify_one();
  }
};

/// One connection: an inbox and a number at each end; end 0 connected to end 1.
struct Pipe {
  std::array<std::shared_ptr<Inbox>, 2> inbox;
  std::array<ConnectionId, 2> id{};
  std::atomic<bool> open{true};

  /// Ends the connection and tells the end that did not ask for it.
  void close(std::size_t from, const char* why) {
    if (!open.exchange(false)) return;
    {
      const std::lock_guard lock(inbox[1]->mutex);
      --inbox[1]->open;
    }
    CarrierEvent event{.kind = CarrierEvent::Kind::kClosed, .connection = id[1 - from]};
    event.detail = why;
    inbox[1 - from]->push({std::move(event), nullptr});
  }
};

}  // namespace

class InProcessNetwork {
 public:
  Result<void> listen(const std::string& name, std::shared_ptr<Inbox> inbox) {
    const std::lock_guard lock(mutex_);
    if (!listeners_.try_emplace(name, std::move(inbox)).second)
      return fail(Errc::kIo, "inproc://" + name + ": somebody listens there already");
    return {};
  }
  void forget(const Inbox* inbox) {
    const std::lock_guard lock(mutex_);
    std::erase_if(listeners_, [inbox](const auto& it) { return it.second.get() == inbox; });
  }
  std::shared_ptr<Inbox> find(const std::string& name) {
    const std::lock_guard lock(mutex_);
    const auto it = listeners_.find(name);
    return it == listeners_.end() ? nullptr : it->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Inbox>> listeners_;  // under mutex_
};

namespace {

class InProcessCarrier final : public Carrier {
 public:
  InProcessCarrier(std::shared_ptr<InProcessNetwork> network, CarrierLimits limits)
      : network_(std::move(network)), limits_(limits) {}

  ~InProcessCarrier() override {
    network_->forget(inbox_.get());
    // Who connected just before this still stands in the inbox.
    std::deque<Item> left;
    {
      const std::lock_guard lock(inbox_->mutex);
      inbox_->gone = true;
      left.swap(inbox_->items);
    }
    for (const auto& item : left)
      if (item.pipe) item.pipe->close(end_of(*item.pipe), "the peer has gone");
    for (const auto& [id, connection] : connections_)
      if (connection.pipe) connection.pipe->close(connection.end, "the peer has gone");
  }

  Result<Address> listen(const Address& address) override {
    MOESAIC_CHECK(check_scheme(address));
    MOESAIC_CHECK(network_->listen(address.place, inbox_));
    return address;
  }

  Result<ConnectionId> connect(const Address& address) override {
    MOESAIC_CHECK(check_scheme(address));
    ConnectionId id = 0;
    {
      const std::lock_guard lock(inbox_->mutex);
      id = ++inbox_->last_connection;
    }
    auto& connection = connections_[id];
    connection.target = address.place;
    try_connect(id, connection);
    return id;
  }

  void close(ConnectionId id) override {
    const auto it = connections_.find(id);
    if (it == connections_.end()) return;
    if (it->second.pipe) it->second.pipe->close(it->second.end, "closed by the peer");
    connections_.erase(it);
    const std::lock_guard lock(inbox_->mutex);
    inbox_->waiting.erase(id);
  }

  Result<void> send(ConnectionId id, Frame frame) override {
    const auto it = connections_.find(id);
    const auto closed = [id] {
      return fail(Errc::kUnavailable, "connection " + std::to_string(id) + " is not open");
    };
    if (it == connections_.end() || !it->second.pipe) return closed();
    MOESAIC_CHECK(checked_size(frame, limits_.max_frame_bytes));
    const auto& pipe = *it->second.pipe;
    const auto other = 1 - it->second.end;
    auto& inbox = *pipe.inbox[other];
    {
      const std::lock_guard lock(inbox.mutex);
      if (!pipe.open) return closed();  // under the lock: no frame after its kClosed
      auto& waiting = inbox.waiting[pipe.id[other]];
      if (waiting >= limits_.queue_frames)
        return fail(Errc::kOverloaded,
                    "queue of " + std::to_string(limits_.queue_frames) + " frames is full");
      ++waiting;
      CarrierEvent event{.kind = CarrierEvent::Kind::kFrame, .connection = pipe.id[other]};
      event.frame = std::move(frame);
      inbox.items.push_back({std::move(event), nullptr});
    }
    inbox.filled.notify_one();
    return {};
  }

  Result<CarrierEvent> receive(Clock::time_point deadline) override {
    for (;;) {
      const auto retry = retry_connections();
      std::unique_lock lock(inbox_->mutex);
      const auto ready = [this] { return inbox_->woken || !inbox_->items.empty(); };
      const auto until = std::min(deadline, retry);
      if (until == Clock::time_point::max()) {
        inbox_->filled.wait(lock, ready);
      } else if (!inbox_->filled.wait_until(lock, until, ready)) {
        if (until < deadline) continue;
        return fail(Errc::kDeadlineExceeded, "no frame before the deadline");
      }
      if (inbox_->woken) {
        inbox_->woken = false;
        return CarrierEvent{.kind = CarrierEvent::Kind::kWoken};
      }
      Item item = std::move(inbox_->items.front());
      inbox_->items.pop_front();
      if (item.event.kind == CarrierEvent::Kind::kFrame) {
        const auto waiting = inbox_->waiting.find(item.event.connection);
        if (waiting != inbox_->waiting.end()) --waiting->second;
      }
      lock.unlock();
      if (accept(item)) return std::move(item.event);
    }
  }

  void wake() override {
    {
      const std::lock_guard lock(inbox_->mutex);
      inbox_->woken = true;
    }
    inbox_->filled.notify_one();
  }

 private:
  struct Connection {
    std::string target;          // empty: accepted
    std::shared_ptr<Pipe> pipe;  // null: not open
    std::size_t end = 0;
    bool connecting = false;  // the kOpened is on its way
    Clock::time_point retry{};
  };

  static Result<void> check_scheme(const Address& address) {
    if (address.scheme == Address::Scheme::kInProcess) return {};
    return fail(Errc::kInvalidArgument, to_string(address) + ": not an address of this process");
  }

  std::size_t end_of(const Pipe& pipe) const { return pipe.inbox[0] == inbox_ ? 0 : 1; }

  void try_connect(ConnectionId id, Connection& connection) {
    connection.retry = Clock::now() + kRetry;
    const auto listener = network_->find(connection.target);
    if (!listener) return;
    const auto pipe = std::make_shared<Pipe>();
    pipe->inbox = {inbox_, listener};
    pipe->id[0] = id;
    {
      const std::lock_guard lock(listener->mutex);
      if (listener->gone || listener->open >= limits_.max_connections) return;
      ++listener->open;
      pipe->id[1] = ++listener->last_connection;
    }
    connection.connecting = true;
    CarrierEvent opened{.kind = CarrierEvent::Kind::kOpened, .connection = pipe->id[1]};
    opened.accepted = true;
    // Ours first: the listener may answer before this function ends.
    inbox_->push({{.kind = CarrierEvent::Kind::kOpened, .connection = id}, pipe});
    {
      const std::lock_guard lock(listener->mutex);
      if (!listener->gone) {
        listener->items.push_back({std::move(opened), pipe});
        listener->filled.notify_one();
        return;
      }
    }
    pipe->close(1, "the peer has gone");
  }

  /// @return when the next attempt is due
  Clock::time_point retry_connections() {
    auto next = Clock::time_point::max();
    for (auto& [id, connection] : connections_) {
      if (connection.target.empty() || connection.pipe || connection.connecting) continue;
      if (connection.retry <= Clock::now()) try_connect(id, connection);
      if (!connection.connecting) next = std::min(next, connection.retry);
    }
    return next;
  }

  /// Keeps the connections in step with an event. False: it concerns one that is closed.
  bool accept(const Item& item) {
    const auto& event = item.event;
    if (event.kind == CarrierEvent::Kind::kOpened) {
      const auto end = item.pipe->id[0] == event.connection && end_of(*item.pipe) == 0 ? 0U : 1U;
      auto it = connections_.find(event.connection);
      if (end == 0 && it == connections_.end()) {  // closed meanwhile
        item.pipe->close(0, "closed by the peer");
        return false;
      }
      if (end == 1) it = connections_.try_emplace(event.connection).first;
      it->second.pipe = item.pipe;
      it->second.end = end;
      it->second.connecting = false;
      return true;
    }
    const auto it = connections_.find(event.connection);
    if (it == connections_.end() || !it->second.pipe) return false;
    if (event.kind == CarrierEvent::Kind::kClosed) {
      {
        const std::lock_guard lock(inbox_->mutex);
        inbox_->waiting.erase(event.connection);
      }
      if (it->second.target.empty()) {
        connections_.erase(it);
      } else {
        it->second.pipe.reset();
        it->second.retry = Clock::now() + kRetry;
      }
    }
    return true;
  }

  std::shared_ptr<InProcessNetwork> network_;
  CarrierLimits limits_;
  std::shared_ptr<Inbox> inbox_ = std::make_shared<Inbox>();
  std::map<ConnectionId, Connection> connections_;
};

}  // namespace

std::shared_ptr<InProcessNetwork> make_in_process_network() {
  return std::make_shared<InProcessNetwork>();
}

std::unique_ptr<Carrier> make_in_process_carrier(std::shared_ptr<InProcessNetwork> network,
                                                 CarrierLimits limits) {
  return std::make_unique<InProcessCarrier>(std::move(network), limits);
}

}  // namespace moesaic::transport
