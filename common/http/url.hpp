#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace moesaic {

/// An http:// URL taken apart.
struct HttpUrl {
  std::string host;  ///< a name or an address; IPv6 without its brackets
  std::uint16_t port = 80;
  std::string target;  ///< path and query, at least "/"

  /// "host:port" as Host headers and messages have it; an IPv6 address in brackets.
  std::string authority() const;
};

/// @errors kUnsupported (another scheme, or a user name), kInvalidArgument (no host, a bad port,
/// white space or control characters)
[[nodiscard]] Result<HttpUrl> parse_http_url(std::string_view text);

}  // namespace moesaic
