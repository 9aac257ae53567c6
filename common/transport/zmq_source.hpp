#pragma once

#include <deque>

#include "common/transport/zmq_message.hpp"
#include "common/transport/zmq_monitor.hpp"

namespace moesaic::transport {

using CarrierEvents = std::deque<CarrierEvent>;

/// One data socket and its monitor, as the carrier's loop sees it. All members may throw
/// zmq::error_t.
class ZmqSource {
 public:
  enum class Read : std::uint8_t { kNothing, kDropped, kEvent };

  explicit ZmqSource(ZmqShared& shared) : shared_(shared) {}
  virtual ~ZmqSource() = default;
  ZmqSource(const ZmqSource&) = delete;
  ZmqSource& operator=(const ZmqSource&) = delete;

  /// Takes one message, if there is one, and adds the events that it means.
  virtual Read read_data(CarrierEvents& events) = 0;
  /// Takes all that the monitor tells.
  virtual void read_monitor(CarrierEvents& events) = 0;
  /// Ends connections whose message never ends; to be called several times a second.
  /// @return one is growing: look again soon
  virtual bool watch(CarrierEvents& events, std::chrono::steady_clock::time_point now) = 0;

  /// False while a connector waits before it tries again.
  bool has_socket() const { return monitor_.has_value(); }
  int data_descriptor() const { return data_descriptor_; }
  int monitor_descriptor() const { return monitor_->descriptor(); }
  /// The socket may have messages that its descriptor does not show: ZeroMQ signals only once, and
  /// sending takes the signal, too.
  bool may_have_data = false;

 protected:
  /// Makes the socket with all options that do not depend on who uses it.
  void make_socket(zmq::socket_type type);
  void drop_socket(int linger_ms);
  /// Takes the next message, if there is one, to `message_`.
  bool read_message(bool routed);
  /// How often everything that was complete has been read.
  std::uint64_t sweeps() const { return sweeps_; }

  ZmqShared& shared_;
  zmq::socket_t socket_;
  std::optional<ZmqMonitor> monitor_;  ///< before the socket in destruction
  ReadMessage message_;

 private:
  int data_descriptor_ = -1;
  std::uint64_t sweeps_ = 0;
  std::uint64_t read_in_sweep_ = 0;
};

}  // namespace moesaic::transport
