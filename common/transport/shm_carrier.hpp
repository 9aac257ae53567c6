#pragma once

#include <memory>
#include <optional>

#include "common/transport/carrier.hpp"

namespace moesaic::transport {

/// Frames through shared memory between two processes of one user on one host. Per connection two
/// rings (shm_ring.hpp); per process one doorbell (shm_doorbell.hpp), so that one `receive` sleeps
/// for all connections. A thread of its own (shm_watcher.hpp) connects, accepts and notices who
/// dies (its socket closes) or stands still (its heartbeat does). Ring memory is written by the
/// peer: what is read from it is read once, bounded and copied before it is used; a peer that
/// breaks the ring's rules is closed.
///
/// Addresses: shm:///path, a unix socket, made with mode 0600 in a folder made with mode 0700 if
/// there is none. A socket file nobody listens on is replaced.
class ShmCarrier final : public Carrier {
 public:
  /// @errors kIo: no memory or descriptors to be had
  [[nodiscard]] static Result<std::unique_ptr<ShmCarrier>> make(CarrierLimits limits = {});
  ~ShmCarrier() override;

  Result<Address> listen(const Address& address) override;
  Result<ConnectionId> connect(const Address& address) override;
  void close(ConnectionId connection) override;
  Result<void> send(ConnectionId connection, Frame frame) override;
  Result<CarrierEvent> receive(std::chrono::steady_clock::time_point deadline) override;
  void wake() override;

  // For a thread that waits for other descriptors, too, in place of `receive`:
  //   if (auto event = carrier.poll()) ...;
  //   if (carrier.arm()) ::poll(.. carrier.wait_fd() ..);
  //   carrier.disarm();
  /// The next event if there is one; never waits.
  std::optional<CarrierEvent> poll();
  /// Readable when something happened after `arm`; the same descriptor for the carrier's life.
  int wait_fd() const;
  /// From now on whoever has news writes to `wait_fd`. @return false: there are news already
  bool arm();
  void disarm();

 private:
  struct Impl;
  explicit ShmCarrier(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace moesaic::transport
