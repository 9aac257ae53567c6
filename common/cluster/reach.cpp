#include "common/cluster/reach.hpp"

namespace moesaic::cluster {

std::vector<transport::Address> reachable_addresses(const Member& member, const std::string& host) {
  using Scheme = transport::Address::Scheme;
  std::vector<transport::Address> reachable;
  for (const auto& text : member.addresses) {
    auto address = transport::parse_address(text, member.public_key);
    if (!address) continue;
    if (address->scheme != Scheme::kTcp && member.host != host) continue;
    reachable.push_back(std::move(*address));
  }
  return reachable;
}

}  // namespace moesaic::cluster
