#pragma once

#include <cstdint>
#include <optional>

#include "common/transport/zmq_socket.hpp"

namespace moesaic::transport {

/// What happens to the connections of one socket, as told by ZeroMQ's monitor. Used on the thread
/// of the socket; must be destroyed before it.
class ZmqMonitor {
 public:
  struct Event {
    std::uint16_t kind = 0;  ///< ZMQ_EVENT_*
    std::int32_t value = 0;  ///< descriptor, errno or status, as the kind has it
  };

  /// @throws zmq::error_t
  ZmqMonitor(ZmqShared& shared, zmq::socket_t& socket);
  ~ZmqMonitor();
  ZmqMonitor(const ZmqMonitor&) = delete;
  ZmqMonitor& operator=(const ZmqMonitor&) = delete;

  /// The next event, if there is one. @throws zmq::error_t
  std::optional<Event> next();
  int descriptor() const { return descriptor_; }

 private:
  zmq::socket_t* watched_;
  zmq::socket_t events_;
  int descriptor_ = -1;
};

}  // namespace moesaic::transport
