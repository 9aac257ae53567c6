#pragma once

#include <filesystem>
#include <memory>

#include "common/transport/carrier.hpp"
#include "common/transport/keys.hpp"

namespace moesaic::transport {

/// Two processes of one host: rings in shared memory, a futex to sleep on, a unix socket whose
/// close is the peer's death. Addresses: shm:///path. Only processes of the same user are accepted.
[[nodiscard]] Result<std::unique_ptr<Carrier>> make_shm_carrier(CarrierLimits limits = {});

/// ZeroMQ over ipc and tcp. With keys every tcp connection is CURVE-encrypted and the peer's role
/// and name are those of its key; without keys tcp is refused beyond loopback unless `plaintext`
/// says so.
struct ZmqOptions {
  std::shared_ptr<const KeyRing> keys;  ///< null: none
  bool plaintext = false;               ///< allow tcp without encryption to and from other hosts
  CarrierLimits limits;
};
[[nodiscard]] Result<std::unique_ptr<Carrier>> make_zmq_carrier(ZmqOptions options);

/// All addresses: shared memory, ipc and tcp behind one `receive`. What services use.
[[nodiscard]] Result<std::unique_ptr<Carrier>> make_carrier(ZmqOptions options);

}  // namespace moesaic::transport
