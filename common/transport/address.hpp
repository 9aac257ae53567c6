#pragma once

#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace moesaic::transport {

/// Where a service listens. As text: `inproc://name`, `shm:///run/moesaic/shard-0.sock` (a unix
/// socket over which two processes of one host agree on shared memory), `ipc:///run/moesaic/x.ipc`,
/// `tcp://10.0.0.1:7401`; IPv6 in brackets. `tcp://...:0`: the system chooses.
struct Address {
  enum class Scheme : std::uint8_t { kInProcess, kShm, kIpc, kTcp };
  Scheme scheme = Scheme::kTcp;
  std::string place;       ///< name, path, or host:port
  std::string server_key;  ///< CURVE public key of who listens, Z85, 40 characters; empty: none

  bool operator==(const Address&) const = default;
};

/// @errors kInvalidArgument with the text: unknown scheme, no port, wildcard host (`*`, 0.0.0.0,
/// ::), a relative path, a path over 100 bytes
[[nodiscard]] Result<Address> parse_address(std::string_view text,
                                            std::string_view server_key = {});
std::string to_string(const Address& address);  ///< without the key
/// True for tcp addresses on 127.0.0.0/8 or ::1, and for all other schemes.
bool is_local(const Address& address);

}  // namespace moesaic::transport
