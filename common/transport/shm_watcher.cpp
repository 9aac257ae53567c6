#include "common/transport/shm_watcher.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/metrics/metrics.hpp"

namespace moesaic::transport {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kRetry{50};  // between attempts to connect
constexpr milliseconds kRefusedRetry{1000};
constexpr milliseconds kPatience{2000};  // for a greeting

}  // namespace

/// One connection, or one that is to be.
struct ShmWatcher::Entry {
  enum class Stage : std::uint8_t { kIdle, kGreeting, kOpen, kOver };
  ConnectionId connection = 0;
  std::string path{};  // empty: accepted
  Stage stage = Stage::kIdle;
  Clock::time_point due{};  // kIdle: of the next attempt; kGreeting: of the end of patience
  Descriptor socket{};
  ShmOffer offer{};                         // kGreeting, not accepted
  std::shared_ptr<ShmConnection> memory{};  // kOpen
  std::uint32_t pulse = 0;
  Clock::time_point pulse_at{};
};

ShmWatcher::ShmWatcher(CarrierLimits limits, std::size_t ring_bytes, const Doorbell& doorbell)
    : limits_(limits), ring_bytes_(ring_bytes), doorbell_(doorbell) {}

Result<std::unique_ptr<ShmWatcher>> ShmWatcher::start(CarrierLimits limits, std::size_t ring_bytes,
                                                      const Doorbell& doorbell) {
  std::unique_ptr<ShmWatcher> watcher(new ShmWatcher(limits, ring_bytes, doorbell));
  watcher->wake_ = Descriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!watcher->wake_) return fail(Errc::kIo, std::string("eventfd: ") + std::strerror(errno));
  watcher->thread_ = std::thread([raw = watcher.get()] { raw->run(); });
  return watcher;
}

ShmWatcher::~ShmWatcher() {
  if (!thread_.joinable()) return;
  ending_ = true;
  ::eventfd_write(wake_.get(), 1);
  thread_.join();
}

Result<void> ShmWatcher::listen(const std::string& path) {
  MOESAIC_TRY(auto listener, ShmListener::listen(path));
  order({.kind = Command::Kind::kListen, .listener = std::move(listener)});
  return {};
}

ConnectionId ShmWatcher::connect(std::string path) {
  const auto connection = ++last_connection_;
  order({.kind = Command::Kind::kConnect, .connection = connection, .path = std::move(path)});
  return connection;
}

void ShmWatcher::close(ConnectionId connection) {
  order({.kind = Command::Kind::kClose, .connection = connection});
}

void ShmWatcher::drop(ConnectionId connection) {
  order({.kind = Command::Kind::kDrop, .connection = connection});
}

void ShmWatcher::order(Command command) {
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
  }
  ::eventfd_write(wake_.get(), 1);
}

void ShmWatcher::notice(Notice notice) {
  {
    const std::lock_guard lock(mutex_);
    notices_.push_back(std::move(notice));
  }
  noticed_ = true;
  doorbell_.ring();
}

std::vector<ShmWatcher::Notice> ShmWatcher::take_notices() {
  noticed_ = false;
  const std::lock_guard lock(mutex_);
  return std::exchange(notices_, {});
}

void ShmWatcher::obey(Clock::time_point now) {
  std::uint64_t count = 0;
  [[maybe_unused]] const auto got = ::read(wake_.get(), &count, sizeof count);
  std::vector<Command> commands;
  {
    const std::lock_guard lock(mutex_);
    commands.swap(commands_);
  }
  for (auto& command : commands) {
    switch (command.kind) {
      case Command::Kind::kListen:
        listeners_.push_back(std::move(command.listener));
        break;
      case Command::Kind::kConnect: {
        auto& entry = *entries_.emplace_back(std::make_unique<Entry>());
        entry.connection = command.connection;
        entry.path = std::move(command.path);
        entry.due = now;
        break;
      }
      case Command::Kind::kClose:
        std::erase_if(entries_,
                      [&](const auto& entry) { return entry->connection == command.connection; });
        break;
      case Command::Kind::kDrop:
        for (auto& entry : entries_)
          if (entry->connection == command.connection) lose(*entry, now, "dropped");
        break;
    }
  }
}

int ShmWatcher::poll_ms(Clock::time_point now) const {
  auto wait = milliseconds::max();
  for (const auto& entry : entries_) {
    auto time = limits_.heartbeat / 2;
    if (entry->stage == Entry::Stage::kIdle)
      time = std::chrono::ceil<milliseconds>(std::max(entry->due - now, Clock::duration{}));
    wait = std::min(wait, time);
  }
  return wait == milliseconds::max() ? -1 : static_cast<int>(wait.count());
}

void ShmWatcher::run() {
  auto last = Clock::now();
  std::vector<pollfd> polled;
  while (!ending_) {
    polled.clear();
    polled.push_back({wake_.get(), POLLIN, 0});
    for (const auto& listener : listeners_) polled.push_back({listener.get(), POLLIN, 0});
    for (const auto& entry : entries_) polled.push_back({entry->socket.get(), POLLIN, 0});
    ::poll(polled.data(), polled.size(), poll_ms(last));

    const auto now = Clock::now();
    // A pulse that others can see, and time for theirs if this process stood still itself.
    doorbell_.page().pulse.fetch_add(1, std::memory_order_relaxed);
    if (now - last > limits_.heartbeat_timeout / 2)
      for (auto& entry : entries_) entry->pulse_at = now;
    last = now;

    // In the order they were listed, before anything is added or removed.
    const auto* fds = polled.data() + 1 + listeners_.size();
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      if (fds[i].revents != 0) on_readable(*entries_[i], now);
      on_time(*entries_[i], now);
    }
    for (std::size_t i = 0; i < listeners_.size(); ++i)
      if (polled[1 + i].revents != 0) accept_from(listeners_[i], now);
    if (polled[0].revents != 0) obey(now);
    for (auto& entry : entries_)  // those just ordered
      if (entry->stage == Entry::Stage::kIdle && entry->due <= now) attempt(*entry, now);
    std::erase_if(entries_, [](const auto& it) { return it->stage == Entry::Stage::kOver; });
    nudge(now);
  }
}

void ShmWatcher::nudge(Clock::time_point now) {
  const bool going_on = std::any_of(entries_.begin(), entries_.end(), [](const auto& it) {
    return it->stage == Entry::Stage::kOpen;
  });
  const auto until = now + 2 * limits_.heartbeat;
  nudged_until_ = going_on ? until.time_since_epoch().count() : kNoNudges;
  // After the store: who reads the old value falls asleep before this, or is told here.
  doorbell_.nudge();
}

void ShmWatcher::accept_from(const ShmListener& listener, Clock::time_point now) {
  for (auto socket = listener.accept(); socket; socket = listener.accept()) {
    const auto same = check_same_user(*socket);
    const auto accepted = static_cast<std::size_t>(std::count_if(
        entries_.begin(), entries_.end(), [](const auto& it) { return it->path.empty(); }));
    if (!same || accepted >= limits_.max_connections) {
      metrics::counter("moesaic_wire_handshake_failures_total").add();
      continue;
    }
    auto& entry = *entries_.emplace_back(std::make_unique<Entry>());
    entry.connection = ++last_connection_;
    entry.stage = Entry::Stage::kGreeting;
    entry.due = now + kPatience;
    entry.socket = std::move(*socket);
  }
}

void ShmWatcher::attempt(Entry& entry, Clock::time_point now) {
  entry.due = now + kRetry;
  auto socket = connect_unix(entry.path);
  if (!socket) return;
  auto offer = make_offer(ring_bytes_);
  if (auto same = check_same_user(*socket); !same || !offer) {
    entry.due = now + kRefusedRetry;
    return notice({CarrierEvent::Kind::kRefused, entry.connection, false, nullptr,
                   entry.path + ": " + (!same ? same.error() : offer.error()).what});
  }
  if (!send_greeting(*socket, offer->hello,
                     {offer->memory.get(), doorbell_.memory().get(), doorbell_.event().get()}))
    return;
  entry.socket = std::move(*socket);
  entry.offer = std::move(*offer);
  entry.stage = Entry::Stage::kGreeting;
  entry.due = now + kPatience;
}

void ShmWatcher::on_greeting(Entry& entry, Clock::time_point now) {
  auto greeting = receive_greeting(entry.socket);
  if (!greeting && greeting.error().code == Errc::kUnavailable) return;
  const bool accepted = entry.path.empty();
  const std::size_t expected = accepted ? 3 : 2;
  if (greeting && greeting->count != expected)
    greeting = fail(Errc::kCorrupt, "greeting with " + std::to_string(greeting->count) +
                                        " descriptors, " + std::to_string(expected) + " expected");
  if (!greeting) return lose(entry, now, greeting.error().what);
  auto& given = greeting->descriptors;
  const auto& memory = accepted ? given[0] : entry.offer.memory;
  const auto first = accepted ? 1 : 0;
  const auto ring_bytes = accepted ? greeting->hello.ring_bytes : entry.offer.hello.ring_bytes;
  auto opening =
      open_connection(memory, ring_bytes, given[first], std::move(given[first + 1]), accepted);
  if (!opening) return lose(entry, now, opening.error().what);
  if (accepted) {
    const ShmHello answer{.ring_bytes = ring_bytes};
    const auto sent =
        send_greeting(entry.socket, answer, {doorbell_.memory().get(), doorbell_.event().get()});
    if (!sent) return lose(entry, now, sent.error().what);
  }
  opened(entry, std::move(*opening), now);
}

void ShmWatcher::opened(Entry& entry, std::shared_ptr<ShmConnection> memory,
                        Clock::time_point now) {
  entry.stage = Entry::Stage::kOpen;
  entry.offer = {};
  entry.memory = memory;
  entry.pulse = memory->doorbell.pulse();
  entry.pulse_at = now;
  notice(
      {CarrierEvent::Kind::kOpened, entry.connection, entry.path.empty(), std::move(memory), {}});
}

void ShmWatcher::on_readable(Entry& entry, Clock::time_point now) {
  if (entry.stage == Entry::Stage::kGreeting) return on_greeting(entry, now);
  if (entry.stage != Entry::Stage::kOpen) return;
  std::byte nothing{};
  const auto got = ::recv(entry.socket.get(), &nothing, 1, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  lose(entry, now, got > 0 ? "the peer sent what nobody expects" : "the peer has gone");
}

void ShmWatcher::on_time(Entry& entry, Clock::time_point now) {
  if (entry.stage == Entry::Stage::kGreeting && entry.due <= now)
    return lose(entry, now, "no greeting came");
  if (entry.stage != Entry::Stage::kOpen) return;
  const auto pulse = entry.memory->doorbell.pulse();
  if (pulse != entry.pulse) {
    entry.pulse = pulse;
    entry.pulse_at = now;
  } else if (now - entry.pulse_at > limits_.heartbeat_timeout) {
    lose(entry, now, "no pulse for " + std::to_string(limits_.heartbeat_timeout.count()) + " ms");
  }
}

void ShmWatcher::lose(Entry& entry, Clock::time_point now, std::string why) {
  if (entry.stage == Entry::Stage::kOpen)
    notice({CarrierEvent::Kind::kClosed, entry.connection, entry.path.empty(), nullptr,
            std::move(why)});
  entry.socket = {};
  entry.memory.reset();
  entry.offer = {};
  entry.stage = entry.path.empty() ? Entry::Stage::kOver : Entry::Stage::kIdle;
  entry.due = now + kRetry;
}

}  // namespace moesaic::transport
