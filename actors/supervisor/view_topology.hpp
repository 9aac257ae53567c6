#pragma once

#include <string>

#include "common/cluster/view.hpp"
#include "common/engine/topology.hpp"

namespace moesaic {

/// What a dispatcher on machine `host` (its boot id) needs of a view: where the shards of the
/// placement listen, and the routers that are alive.
Topology topology_of(const cluster::View& view, const std::string& host);

}  // namespace moesaic
