#pragma once

#include <chrono>

#include "common/transport/endless_watch.hpp"
#include "common/transport/frame_window.hpp"
#include "common/transport/zmq_source.hpp"

namespace moesaic::transport {

/// One connection that we make: a DEALER, replaced by a new one each time the connection is lost,
/// so that nothing queued for or by the former connection reaches the new one.
class ZmqConnector final : public ZmqSource {
 public:
  using Clock = std::chrono::steady_clock;

  /// @param key_owner `role/name` of the listener's key; empty: there are no keys
  ZmqConnector(ZmqShared& shared, ConnectionId id, Address address, std::string key_owner);
  ~ZmqConnector() override;

  ConnectionId id() const { return id_; }
  /// Makes the socket and begins to connect; after an error it is due again a little later.
  /// @errors kIo: no such host or interface, no descriptors left
  [[nodiscard]] Result<void> open();
  /// When `open` is due; max() while there is a socket.
  Clock::time_point open_at() const { return open_at_; }

  /// @errors kUnavailable, kOverloaded
  [[nodiscard]] Result<void> send(zmq::message_t message, CarrierEvents& events);
  Read read_data(CarrierEvents& events) override;
  void read_monitor(CarrierEvents& events) override;
  bool watch(CarrierEvents& events, std::chrono::steady_clock::time_point now) override;

 private:
  void connect();
  void take_one();
  /// @param least the shortest wait before the next try
  void lose(CarrierEvents& events, std::string why, std::chrono::milliseconds least);
  void refuse(CarrierEvents& events, std::string why);

  ConnectionId id_;
  Address address_;
  std::string key_owner_;
  std::string peer_;  ///< label of metrics
  bool open_ = false;
  int descriptor_ = -1;  ///< of the connection
  FrameWindow window_;
  EndlessWatch watch_;
  Clock::time_point open_at_ = Clock::time_point::min();
  Clock::time_point opened_{};
  Clock::time_point connected_{};
  Clock::time_point refused_{};
  std::chrono::milliseconds wait_{0};
};

}  // namespace moesaic::transport
