#include "actors/supervisor/view_topology.hpp"

#include "common/cluster/reach.hpp"

namespace moesaic {

Topology topology_of(const cluster::View& view, const std::string& host) {
  Topology topology;
  topology.version = view.version;
  topology.placement = view.placement;
  for (const auto& name : view.placement.shards) {
    const auto* shard = view.find("expert-shard", name);
    topology.shard_addresses.push_back(shard == nullptr
                                           ? std::vector<transport::Address>{}
                                           : cluster::reachable_addresses(shard->member, host));
  }
  for (const auto& state : view.members) {
    if (state.member.role != "router" || !state.alive || state.load.draining) continue;
    const auto addresses = cluster::reachable_addresses(state.member, host);
    if (!addresses.empty()) topology.routers.push_back(addresses.front());
  }
  return topology;
}

}  // namespace moesaic
