#include "common/http/url.hpp"

#include <algorithm>
#include <charconv>

namespace moesaic {

std::string HttpUrl::authority() const {
  const bool ipv6 = host.find(':') != std::string::npos;
  return (ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<HttpUrl> parse_http_url(std::string_view text) {
  const auto invalid = [&](std::string_view why) {
    return fail(Errc::kInvalidArgument, "URL \"" + std::string(text) + "\": " + std::string(why));
  };
  constexpr std::string_view kScheme = "http://";
  if (std::any_of(text.begin(), text.end(), [](char c) { return c <= ' ' || c == 0x7f; })) {
    return fail(Errc::kInvalidArgument, "a URL with white space or control characters");
  }
  if (text.substr(0, kScheme.size()) != kScheme) {
    return fail(Errc::kUnsupported, "URL \"" + std::string(text) + "\": only http:// is built");
  }
  const auto rest = text.substr(kScheme.size());
  const auto slash = std::min(rest.find_first_of("/?#"), rest.size());
  auto authority = rest.substr(0, slash);
  HttpUrl url;
  const auto target = rest.substr(slash);
  url.target = std::string(target.substr(0, target.find('#')));
  if (url.target.empty() || url.target[0] != '/') url.target.insert(0, "/");
  if (authority.find('@') != std::string_view::npos) {
    return fail(Errc::kUnsupported, "a URL with a user name: none is sent");
  }

  std::string_view port;
  if (!authority.empty() && authority[0] == '[') {
    const auto close = authority.find(']');
    if (close == std::string_view::npos) return invalid("no ]");
    url.host = std::string(authority.substr(1, close - 1));
    port = authority.substr(close + 1);
  } else {
    const auto colon = std::min(authority.find(':'), authority.size());
    url.host = std::string(authority.substr(0, colon));
    port = authority.substr(colon);
  }
  if (url.host.empty()) return invalid("no host");
  if (!port.empty()) {
    const auto* end = port.data() + port.size();
    const auto [stopped, error] = std::from_chars(port.data() + 1, end, url.port);
    if (port[0] != ':' || error != std::errc{} || stopped != end || url.port == 0) {
      return invalid("the port is a number from 1 to 65535");
    }
  }
  return url;
}

}  // namespace moesaic
