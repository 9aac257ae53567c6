#pragma once

#include <atomic>
#include <chrono>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/transport/carrier.hpp"
#include "common/transport/shm_connection.hpp"

namespace moesaic::transport {

/// The thread of a shared-memory carrier that owns its sockets: it connects and connects again,
/// accepts, notices the death of a peer by its socket and a standstill by its pulse, and gives a
/// pulse itself. What it notices is collected by the carrier's thread, whose doorbell it rings. It
/// sleeps for good while nothing is connected or to be connected.
class ShmWatcher {
 public:
  struct Notice {
    CarrierEvent::Kind kind{};  ///< kOpened, kClosed, kRefused
    ConnectionId connection = 0;
    bool accepted = false;
    std::shared_ptr<ShmConnection> memory{};  ///< kOpened
    std::string detail{};
  };

  /// @param doorbell outlives this; its thread may be another
  /// @errors kIo
  [[nodiscard]] static Result<std::unique_ptr<ShmWatcher>> start(CarrierLimits limits,
                                                                 std::size_t ring_bytes,
                                                                 const Doorbell& doorbell);
  ~ShmWatcher();
  ShmWatcher(const ShmWatcher&) = delete;
  ShmWatcher& operator=(const ShmWatcher&) = delete;

  using Clock = std::chrono::steady_clock;

  // All by the carrier's thread.
  /// @errors kIo
  [[nodiscard]] Result<void> listen(const std::string& path);
  ConnectionId connect(std::string path);
  void close(ConnectionId connection);
  /// Ends a connection that is open; one that was made is made again.
  void drop(ConnectionId connection);
  /// Cheap: one load.
  bool has_notices() const { return noticed_.load(); }
  std::vector<Notice> take_notices();
  /// True: the sleeper behind the doorbell is woken at least once well before that time. Cheap: no
  /// look at the clock.
  bool nudges_before(Clock::time_point deadline) const {
    return deadline.time_since_epoch().count() > nudged_until_.load();
  }

 private:
  struct Entry;
  struct Command {
    enum class Kind : std::uint8_t { kListen, kConnect, kClose, kDrop } kind{};
    ConnectionId connection = 0;
    std::string path{};
    ShmListener listener{};
  };

  static constexpr auto kNoNudges = std::numeric_limits<Clock::rep>::max();

  ShmWatcher(CarrierLimits limits, std::size_t ring_bytes, const Doorbell& doorbell);
  void order(Command command);
  void notice(Notice notice);

  void run();
  void obey(Clock::time_point now);
  int poll_ms(Clock::time_point now) const;
  void nudge(Clock::time_point now);
  void accept_from(const ShmListener& listener, Clock::time_point now);
  void attempt(Entry& entry, Clock::time_point now);
  void on_readable(Entry& entry, Clock::time_point now);
  void on_greeting(Entry& entry, Clock::time_point now);
  void on_time(Entry& entry, Clock::time_point now);
  void opened(Entry& entry, std::shared_ptr<ShmConnection> memory, Clock::time_point now);
  void lose(Entry& entry, Clock::time_point now, std::string why);

  const CarrierLimits limits_;
  const std::size_t ring_bytes_;
  const Doorbell& doorbell_;
  Descriptor wake_;  // eventfd: commands, or the end

  std::mutex mutex_;
  std::vector<Command> commands_;  // under mutex_
  std::vector<Notice> notices_;    // under mutex_
  std::atomic<bool> noticed_{false};
  std::atomic<bool> ending_{false};
  std::atomic<Clock::rep> nudged_until_{kNoNudges};
  std::atomic<ConnectionId> last_connection_{0};

  // Of the thread alone.
  std::vector<ShmListener> listeners_;
  std::vector<std::unique_ptr<Entry>> entries_;
  std::thread thread_;
};

}  // namespace moesaic::transport
