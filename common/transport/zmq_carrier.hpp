#pragma once

#include <memory>
#include <optional>

#include "common/transport/carriers.hpp"

namespace moesaic::transport {

/// ZeroMQ over ipc and tcp: a ROUTER per kind of authentication to listen, a DEALER per connection
/// made, all read by the thread that owns the carrier. Beside the Carrier interface it can be part
/// of a loop that waits for other things, too.
class ZmqCarrier final : public Carrier {
 public:
  /// @errors kUnsupported: a libzmq older than 4.3.3, or without CURVE; kIo
  [[nodiscard]] static Result<std::unique_ptr<ZmqCarrier>> make(ZmqOptions options);
  ~ZmqCarrier() override;

  Result<Address> listen(const Address& address) override;
  Result<ConnectionId> connect(const Address& address) override;
  void close(ConnectionId connection) override;
  Result<void> send(ConnectionId connection, Frame frame) override;
  Result<CarrierEvent> receive(std::chrono::steady_clock::time_point deadline) override;
  void wake() override;

  /// The next event if there is one already.
  std::optional<CarrierEvent> take();
  /// Sleeps until `take` may have something, `other` (a descriptor; -1: none) is readable, or the
  /// deadline. Must follow a `take` that found nothing.
  void wait(std::chrono::steady_clock::time_point deadline, int other = -1);
  /// True if there is nothing to wait for: no listener, no connection made.
  bool idle() const;
  /// Messages of peers that were no frames.
  std::uint64_t malformed() const;

 private:
  struct Impl;
  explicit ZmqCarrier(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace moesaic::transport
