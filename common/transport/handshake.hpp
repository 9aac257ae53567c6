#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/transport/endpoint.hpp"

namespace moesaic::transport {

/// The message in kHello and kWelcome.
struct Hello {
  std::uint16_t wire_version = 0;
  std::uint16_t credits = 0;  ///< of kWelcome
  Identity identity;
};
template <class Codec>
void fields(Codec& codec, Identity& i) {
  codec(i.role);
  codec(i.name);
  codec(i.incarnation);
  codec(i.model_hash);
  codec(i.version);
  codec(i.host);
}
template <class Codec>
void fields(Codec& codec, Hello& h) {
  codec(h.wire_version);
  codec(h.credits);
  codec(h.identity);
}

/// What a hello is compared with.
struct Expectation {
  const Identity* self = nullptr;
  const std::vector<std::string>* accepted_roles = nullptr;  ///< null or empty: any
  std::string_view key_owner;         ///< `role/name` of the peer's key; empty: no keys
  std::uint32_t min_incarnation = 0;  ///< the highest seen of that identity
};

/// The hello in a frame, its texts checked: short and printable, so that they can be logged.
/// @errors kCorrupt
[[nodiscard]] Result<Hello> read_hello(const Frame& frame);

/// Why a peer is refused, as one line that names both sides; empty: it fits.
std::string refusal(const Hello& peer, const Expectation& expected);

/// "role/name"
std::string full_name(const Identity& identity);

}  // namespace moesaic::transport
