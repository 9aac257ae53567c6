#pragma once

#include <chrono>
#include <functional>
#include <unordered_map>
#include <unordered_set>

#include "common/transport/endless_watch.hpp"
#include "common/transport/frame_window.hpp"
#include "common/transport/stranger_queue.hpp"
#include "common/transport/zmq_source.hpp"

namespace moesaic::transport {

/// Connections that others make to us: a ROUTER, bound to any number of addresses that share one
/// kind of authentication. A connection begins with a hi; ZeroMQ tells its descriptor
/// with each message, and the monitor tells when the descriptor is closed. Whoever connects may
/// stay a stranger (StrangerQueue), who costs a descriptor, until there are too many.
class ZmqListener final : public ZmqSource {
 public:
  /// @param curve clients must have a key of the ring
  /// @param next_id gives the ids of accepted connections
  ZmqListener(ZmqShared& shared, bool curve, std::function<ConnectionId()> next_id);
  ~ZmqListener() override;

  /// @return the address as bound, port filled in
  Address bind(const Address& address);

  bool has(ConnectionId connection) const { return routes_.contains(connection); }
  /// @errors kUnavailable, kOverloaded
  [[nodiscard]] Result<void> send(ConnectionId connection, zmq::message_t message,
                                  CarrierEvents& events);
  void close(ConnectionId connection);
  Read read_data(CarrierEvents& events) override;
  void read_monitor(CarrierEvents& events) override;
  bool watch(CarrierEvents& events, std::chrono::steady_clock::time_point now) override;

 private:
  using Clock = std::chrono::steady_clock;

  /// ZeroMQ's name of a connection. Descriptors are used again, routes (of peers of ours) are not.
  using Route = std::string;
  struct Accepted {
    ConnectionId connection = 0;
    int descriptor = -1;
    bool ignored = false;  ///< closed by us; the peer has yet to leave
    std::string peer{};    ///< label of metrics
    FrameWindow window;
  };
  struct Socket {
    Route route{};  ///< empty: no hi yet
    EndlessWatch watch{};
  };

  bool accept(const Route& route, CarrierEvents& events);
  void take_one(Accepted& from);
  bool is_full(const std::string& peer) const;
  void tell_full(const std::string& peer);
  bool send_to(const Route& route, zmq::message_t& message);
  void dismiss(const Route& route);
  void lose(const Route& route, CarrierEvents& events, const char* why);
  void forget(const Route& route);
  void count_failure();
  void show_out(int descriptor) const;

  bool curve_;
  std::function<ConnectionId()> next_id_;
  std::unordered_map<Route, Accepted> accepted_;
  std::unordered_map<ConnectionId, Route> routes_;  ///< of those not ignored
  std::unordered_map<int, Socket> sockets_;         ///< alive, by descriptor
  StrangerQueue strangers_;
  std::unordered_set<std::string> bound_;  ///< ports and paths
  std::unordered_set<Route> gone_;         ///< some of their messages may still come
  std::deque<Route> gone_order_;
  std::uint64_t failures_ = 0;
  Clock::time_point failures_told_{};
  Clock::time_point full_told_{};
  Route route_;
};

}  // namespace moesaic::transport
