#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/cluster/placement_table.hpp"
#include "common/transport/address.hpp"

namespace moesaic {

/// Where the experts are: a placement, and how its shards and the routers are reached. Immutable
/// once published.
struct Topology {
  std::uint64_t version = 0;  ///< of the cluster's view; grows
  cluster::PlacementTable placement;
  /// As placement.shards: the shard's addresses, best first; none: it is not known to be there.
  std::vector<std::vector<transport::Address>> shard_addresses;
  std::vector<transport::Address> routers;  ///< dispatch addresses, in order of preference
};
using TopologyPtr = std::shared_ptr<const Topology>;

/// True of memory and sockets of this machine: who listens there shares its cores with who asks.
bool is_neighbour(const transport::Address& address);
/// True if some shard is one.
bool has_neighbours(const Topology& topology);

/// What a dispatcher says of itself.
struct Reach {
  std::uint64_t adopted = 0;            ///< no question of an older version is open
  std::string missing = "not started";  ///< why it cannot serve now; empty: it can
  bool operator==(const Reach&) const = default;
};

/// The current topology, set by the control plane and read by the dispatching threads (an engine,
/// a router's service thread). All members may be called from any thread.
class TopologySource {
 public:
  /// Never null; at first version 0 without shards.
  TopologyPtr latest() const;
  /// Publishes a topology and wakes those who subscribed.
  void set(Topology topology);

  /// Told by the dispatcher that uses this source.
  void report(Reach reach);
  Reach reach() const;

  /// `wake` is called by `set`, on the setter's thread, until `unsubscribe` has returned.
  using Subscription = std::uint64_t;
  Subscription subscribe(std::function<void()> wake);
  void unsubscribe(Subscription subscription);

 private:
  mutable std::mutex mutex_;
  TopologyPtr latest_ = std::make_shared<const Topology>();
  Reach reach_;
  std::map<Subscription, std::function<void()>> wakers_;
  Subscription next_ = 1;
};

}  // namespace moesaic
