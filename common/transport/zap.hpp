#pragma once

#include <memory>
#include <string_view>
#include <thread>

#include "common/transport/keys.hpp"

namespace zmq {
class context_t;
}

namespace moesaic::transport {

/// Domain that listeners must name to be asked about here.
inline constexpr std::string_view kZapDomain = "moesaic";

/// Decides who may connect (ZeroMQ Authentication Protocol, RFC 27): CURVE clients whose public key
/// is in the key ring, known to the socket as User-Id `role/name`. One per context; its thread ends
/// when the context is shut down, which must happen before destruction.
class ZapHandler {
 public:
  /// @throws zmq::error_t
  ZapHandler(zmq::context_t& context, std::shared_ptr<const KeyRing> keys);

 private:
  std::jthread thread_;
};

}  // namespace moesaic::transport
