#pragma once

#include <string>
#include <vector>

#include "common/cluster/view.hpp"
#include "common/transport/address.hpp"

namespace moesaic::cluster {

/// The addresses of a member that a process on machine `host` (its boot id) can connect to, best
/// first, with the member's key: shared memory and ipc on the same machine only. Addresses that
/// cannot be read are left out.
std::vector<transport::Address> reachable_addresses(const Member& member, const std::string& host);

}  // namespace moesaic::cluster
