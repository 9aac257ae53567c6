#include "common/transport/address.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

namespace moesaic::transport {
namespace {

constexpr std::size_t kMaxPlace = 100;  // a unix socket's path has 107
constexpr std::size_t kKeyCharacters = 40;

constexpr std::array kSchemes{
    std::pair{Address::Scheme::kInProcess, std::string_view{"inproc://"}},
    std::pair{Address::Scheme::kShm, std::string_view{"shm://"}},
    std::pair{Address::Scheme::kIpc, std::string_view{"ipc://"}},
    std::pair{Address::Scheme::kTcp, std::string_view{"tcp://"}},
};

tl::unexpected<Error> refuse(std::string_view text, std::string_view why) {
  return fail(Errc::kInvalidArgument, "address \"" + std::string(text) + "\": " + std::string(why));
}

/// "host:port" or "[v6]:port" as (host without brackets, port).
std::pair<std::string_view, std::string_view> split(std::string_view place) {
  const auto colon = place.rfind(':');
  if (colon == std::string_view::npos) return {place, {}};
  auto host = place.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  return {host, place.substr(colon + 1)};
}

bool is_z85(std::string_view key) {
  constexpr std::string_view kAlphabet =
      "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
  return key.size() == kKeyCharacters && key.find_first_not_of(kAlphabet) == std::string_view::npos;
}

Result<void> check_tcp(std::string_view text, std::string_view place) {
  const auto [host, port] = split(place);
  if (port.empty()) return refuse(text, "no port (host:port, [v6]:port)");
  unsigned number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc{} || end != port.data() + port.size() || number > 65535)
    return refuse(text, "the port is no number up to 65535");
  if (host.empty()) return refuse(text, "no host");
  if (host == "*" || host == "0.0.0.0" || host == "::" || host == "0")
    return refuse(text, "a wildcard: name the address to use");
  const bool bracketed = place.front() == '[';
  if (bracketed != (host.find(':') != std::string_view::npos))
    return refuse(text, "IPv6 addresses stand in brackets, others do not");
  constexpr std::string_view kHost =
      "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_:";
  if (host.find_first_not_of(kHost) != std::string_view::npos)
    return refuse(text, "a character that no host name has");
  return {};
}

}  // namespace

Result<Address> parse_address(std::string_view text, std::string_view server_key) {
  const auto scheme = std::find_if(kSchemes.begin(), kSchemes.end(), [&](const auto& entry) {
    return text.substr(0, entry.second.size()) == entry.second;
  });
  if (scheme == kSchemes.end()) return refuse(text, "expected inproc://, shm://, ipc:// or tcp://");
  const auto place = text.substr(scheme->second.size());
  if (place.empty()) return refuse(text, "nothing after the scheme");
  if (place.size() > kMaxPlace)
    return refuse(text, std::to_string(place.size()) + " bytes after the scheme, at most " +
                            std::to_string(kMaxPlace));
  if (place.find('\0') != std::string_view::npos) return refuse(text, "a zero byte");
  switch (scheme->first) {
    case Address::Scheme::kTcp:
      MOESAIC_CHECK(check_tcp(text, place));
      break;
    case Address::Scheme::kShm:
    case Address::Scheme::kIpc:
      if (place.front() != '/') return refuse(text, "the path must begin with /");
      if (place.back() == '/') return refuse(text, "the path names a folder");
      break;
    case Address::Scheme::kInProcess:
      break;
  }
  if (!server_key.empty() && !is_z85(server_key))
    return refuse(text, "the server key is not 40 characters of Z85");
  return Address{scheme->first, std::string(place), std::string(server_key)};
}

std::string to_string(const Address& address) {
  const auto scheme = std::find_if(kSchemes.begin(), kSchemes.end(),
                                   [&](const auto& it) { return it.first == address.scheme; });
  return std::string(scheme->second) + address.place;
}

bool is_local(const Address& address) {
  if (address.scheme != Address::Scheme::kTcp) return true;
  const auto host = split(address.place).first;
  if (host == "::1") return true;
  // A name such as 127.example.org is not an address: four numbers only.
  return host.substr(0, 4) == "127." && std::count(host.begin(), host.end(), '.') == 3 &&
         host.find_first_not_of("0123456789.") == std::string_view::npos;
}

}  // namespace moesaic::transport
