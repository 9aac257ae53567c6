#include "common/transport/zmq_carrier.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <vector>

#include "common/transport/zap.hpp"
#include "common/transport/zmq_connector.hpp"
#include "common/transport/zmq_listener.hpp"

namespace moesaic::transport {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kTurnsPerLook = 32;  // takes between two looks at monitors and the eventfd
constexpr std::chrono::milliseconds kWatchEvery{100};  // for messages without end
constexpr std::chrono::milliseconds kWatchGrowing{10};
constexpr int kMessagesPerTurn = 64;  // dropped ones in one take; so that deadlines are kept

tl::unexpected<Error> zmq_failure(const std::string& what, const zmq::error_t& error) {
  return fail(Errc::kIo, what + ": " + error.what());
}

/// Only processes that may enter the folder can connect: it must be ours alone.
Result<void> prepare_ipc(const std::filesystem::path& path) {
  const auto folder = path.parent_path();
  std::error_code code;
  std::filesystem::create_directories(folder.parent_path(), code);
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    return fail(Errc::kIo, folder.string() + ": " + std::strerror(errno));
  struct stat status {};
  if (::stat(folder.c_str(), &status) != 0 || status.st_uid != ::geteuid() ||
      (status.st_mode & 077) != 0)
    return fail(Errc::kIo, "ipc://" + path.string() + ": others may enter the folder " +
                               folder.string() + "; it must be ours, mode 0700");
  // ZeroMQ would take the path from a process that listens there.
  sockaddr_un place{};
  place.sun_family = AF_UNIX;
  if (path.string().size() >= sizeof place.sun_path)
    return fail(Errc::kIo, "ipc://" + path.string() + ": path too long");
  std::memcpy(place.sun_path, path.c_str(), path.string().size());
  const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const bool taken =
      ::connect(probe, reinterpret_cast<const sockaddr*>(&place), sizeof place) == 0 ||
      errno == EAGAIN;
  ::close(probe);
  if (taken) return fail(Errc::kIo, "ipc://" + path.string() + ": address in use");
  return {};
}

}  // namespace

struct ZmqCarrier::Impl {
  ZmqShared shared;
  std::optional<ZapHandler> zap;
  std::optional<ZmqListener> plain, secure;
  std::map<ConnectionId, std::unique_ptr<ZmqConnector>> connectors;
  std::vector<ZmqSource*> sources;  ///< all of the above, in the order they are read
  std::size_t next_source = 0;
  ConnectionId last_id = 0;
  CarrierEvents events;
  std::vector<pollfd> polled;
  bool polled_stale = true;
  int turns = 0;
  int wake_fd = -1;
  Clock::time_point next_watch{};

  ~Impl() {
    connectors.clear();
    secure.reset();
    plain.reset();
    shared.context.shutdown();
    zap.reset();
    if (wake_fd >= 0) ::close(wake_fd);
  }

  void sources_changed() {
    sources.clear();
    if (plain) sources.push_back(&*plain);
    if (secure) sources.push_back(&*secure);
    for (auto& [id, connector] : connectors) sources.push_back(connector.get());
    next_source = 0;
    polled_stale = true;
  }

  ZmqListener* listener_of(ConnectionId connection) {
    for (auto* listener : {&plain, &secure})
      if (*listener && (*listener)->has(connection)) return &**listener;
    return nullptr;
  }

  ZmqListener& listener_for(const Address& address) {
    const bool curve = uses_curve(shared.options, address);
    auto& listener = curve ? secure : plain;
    if (listener) return *listener;
    if (curve && !zap) zap.emplace(shared.context, shared.options.keys);
    listener.emplace(shared, curve, [this] { return ++last_id; });
    sources_changed();
    return *listener;
  }

  std::optional<CarrierEvent> pop() {
    if (events.empty()) return std::nullopt;
    auto event = std::move(events.front());
    events.pop_front();
    return event;
  }

  /// One read of a source; a connector may lose its socket by it.
  ZmqSource::Read read(ZmqSource& source) {
    const auto read = source.read_data(events);
    if (!source.has_socket()) polled_stale = true;
    return read;
  }

  std::optional<CarrierEvent> take() {
    if (auto event = pop()) return event;
    if (++turns >= kTurnsPerLook) {
      look({}, -1);
      if (auto event = pop()) return event;
    }
    int left = kMessagesPerTurn;
    for (std::size_t tried = 0; tried < sources.size() && left > 0;) {
      auto& source = *sources[next_source];
      const auto got = source.may_have_data ? read(source) : ZmqSource::Read::kNothing;
      if (got == ZmqSource::Read::kDropped) {
        --left;
        continue;
      }
      next_source = (next_source + 1) % sources.size();
      if (got == ZmqSource::Read::kEvent) return pop();
      ++tried;
    }
    return pop();  // news of a monitor that a read asked
  }

  void rebuild_polled(int other) {
    polled.clear();
    polled.push_back({wake_fd, POLLIN, 0});
    polled.push_back({other, POLLIN, 0});
    for (auto* source : sources) {
      const bool has = source->has_socket();
      polled.push_back({has ? source->data_descriptor() : -1, POLLIN, 0});
      polled.push_back({has ? source->monitor_descriptor() : -1, POLLIN, 0});
    }
    polled_stale = false;
  }

  /// Makes the sockets that are due. @return when the next one is
  Clock::time_point open_due() {
    auto next = Clock::time_point::max();
    for (auto& [id, connector] : connectors) {
      if (connector->open_at() == Clock::time_point::max()) continue;
      if (connector->open_at() <= Clock::now()) {
        static_cast<void>(connector->open());  // failed: due again later
        polled_stale = true;
      }
      next = std::min(next, connector->open_at());
    }
    return next;
  }

  /// Looks after messages without end, if it is time to. @return when it is time again
  Clock::time_point watch_due() {
    if (sources.empty()) return Clock::time_point::max();
    const auto now = Clock::now();
    if (now < next_watch) return next_watch;
    bool growing = false;
    for (auto* source : sources) {
      if (!source->has_socket()) continue;
      growing = source->watch(events, now) || growing;
      if (!source->has_socket()) polled_stale = true;
    }
    next_watch = now + (growing ? kWatchGrowing : kWatchEvery);
    return next_watch;
  }

  /// Asks all descriptors, waiting until the deadline at most, and takes what the eventfd and the
  /// monitors tell.
  void look(Clock::time_point deadline, int other) {
    turns = 0;
    deadline = std::min({deadline, open_due(), watch_due()});
    if (!events.empty()) deadline = {};
    if (polled_stale || polled[1].fd != other) rebuild_polled(other);
    for (const auto* source : sources)
      if (source->may_have_data) deadline = {};
    const auto left = std::max(deadline - Clock::now(), Clock::duration::zero());
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(left);
    const timespec timeout{static_cast<time_t>(seconds.count()),
                           static_cast<long>(std::chrono::nanoseconds(left - seconds).count())};
    const bool for_ever = deadline == Clock::time_point::max();
    if (::ppoll(polled.data(), polled.size(), for_ever ? nullptr : &timeout, nullptr) <= 0) return;
    if (polled[0].revents != 0) {
      std::uint64_t count = 0;
      if (::read(wake_fd, &count, sizeof count) > 0) events.push_back({CarrierEvent::Kind::kWoken});
    }
    for (std::size_t i = 0; i < sources.size(); ++i) {
      auto& source = *sources[i];
      if (polled[2 + 2 * i].revents != 0) source.may_have_data = true;
      if (polled[3 + 2 * i].revents == 0) continue;
      // What the peer said before it left comes before the news that it did.
      for (int n = 0; n < kMessagesPerTurn && source.may_have_data; ++n) read(source);
      if (!source.has_socket()) continue;
      source.read_monitor(events);
      if (!source.has_socket()) polled_stale = true;
    }
  }
};

ZmqCarrier::ZmqCarrier(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqCarrier::~ZmqCarrier() = default;

Result<std::unique_ptr<ZmqCarrier>> ZmqCarrier::make(ZmqOptions options) {
  const auto [major, minor, patch] = zmq::version();
  if (std::tuple(major, minor, patch) < std::tuple(4, 3, 3))
    return fail(Errc::kUnsupported, "libzmq " + std::to_string(major) + "." +
                                        std::to_string(minor) + "." + std::to_string(patch) +
                                        ": 4.3.3 or newer is needed");
  if (options.keys != nullptr && ::zmq_has("curve") == 0)
    return fail(Errc::kUnsupported, "libzmq was built without CURVE");
  try {
    auto impl = std::make_unique<Impl>();
    impl->shared.options = std::move(options);
    impl->wake_fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (impl->wake_fd < 0) return fail(Errc::kIo, std::string("eventfd: ") + std::strerror(errno));
    return std::unique_ptr<ZmqCarrier>(new ZmqCarrier(std::move(impl)));
  } catch (const zmq::error_t& error) {
    return zmq_failure("zmq", error);
  }
}

Result<Address> ZmqCarrier::listen(const Address& address) {
  MOESAIC_CHECK(check_crypto(impl_->shared.options, address));
  if (address.scheme == Address::Scheme::kIpc) MOESAIC_CHECK(prepare_ipc(address.place));
  try {
    return impl_->listener_for(address).bind(address);
  } catch (const zmq::error_t& error) {
    return zmq_failure(to_string(address) + ": cannot listen", error);
  }
}

Result<ConnectionId> ZmqCarrier::connect(const Address& address) {
  const auto& options = impl_->shared.options;
  MOESAIC_CHECK(check_crypto(options, address));
  std::string key_owner;
  if (uses_curve(options, address)) {
    key_owner = options.keys->owner_of(address.server_key);
    if (key_owner.empty())
      return fail(Errc::kInvalidArgument,
                  to_string(address) + ": " +
                      (address.server_key.empty() ? "the listener's public key is not given"
                                                  : "the listener's key is not in known_keys"));
  }
  const auto id = ++impl_->last_id;
  auto connector = std::make_unique<ZmqConnector>(impl_->shared, id, address, key_owner);
  MOESAIC_CHECK(connector->open());
  impl_->connectors.emplace(id, std::move(connector));
  impl_->sources_changed();
  return id;
}

void ZmqCarrier::close(ConnectionId connection) {
  try {
    if (auto* listener = impl_->listener_of(connection)) listener->close(connection);
    if (impl_->connectors.erase(connection) > 0) impl_->sources_changed();
  } catch (const zmq::error_t&) {
    // The socket is being closed anyway.
  }
  std::erase_if(impl_->events, [&](const auto& event) {
    return event.connection == connection && connection != 0;
  });
}

Result<void> ZmqCarrier::send(ConnectionId connection, Frame frame) {
  try {
    const auto connector = impl_->connectors.find(connection);
    auto* listener =
        connector == impl_->connectors.end() ? impl_->listener_of(connection) : nullptr;
    if (connector == impl_->connectors.end() && listener == nullptr)
      return fail(Errc::kUnavailable, "connection " + std::to_string(connection) + " is not open");
    MOESAIC_TRY(auto message, to_message(frame, impl_->shared.options.limits.max_frame_bytes));
    if (listener != nullptr) return listener->send(connection, std::move(message), impl_->events);
    auto sent = connector->second->send(std::move(message), impl_->events);
    if (!connector->second->has_socket()) impl_->polled_stale = true;
    return sent;
  } catch (const zmq::error_t& error) {
    return zmq_failure("send", error);
  }
}

Result<CarrierEvent> ZmqCarrier::receive(Clock::time_point deadline) {
  while (true) {
    if (auto event = take()) return std::move(*event);
    const bool late = Clock::now() >= deadline;
    wait(deadline);
    if (!late) continue;
    if (auto event = take()) return std::move(*event);
    return fail(Errc::kDeadlineExceeded, "no event before the deadline");
  }
}

std::optional<CarrierEvent> ZmqCarrier::take() {
  try {
    return impl_->take();
  } catch (const zmq::error_t&) {
    return std::nullopt;  // interrupted by a signal, or out of descriptors: tried again
  }
}

void ZmqCarrier::wait(Clock::time_point deadline, int other) {
  try {
    impl_->look(deadline, other);
  } catch (const zmq::error_t&) {
    // As in take().
  }
}

void ZmqCarrier::wake() {
  const std::uint64_t one = 1;
  static_cast<void>(!::write(impl_->wake_fd, &one, sizeof one));
}

bool ZmqCarrier::idle() const { return impl_->sources.empty(); }

std::uint64_t ZmqCarrier::malformed() const { return impl_->shared.malformed; }

Result<std::unique_ptr<Carrier>> make_zmq_carrier(ZmqOptions options) {
  MOESAIC_TRY(auto carrier, ZmqCarrier::make(std::move(options)));
  return std::unique_ptr<Carrier>(std::move(carrier));
}

}  // namespace moesaic::transport
