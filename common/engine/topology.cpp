#include "common/engine/topology.hpp"

#include <algorithm>

namespace moesaic {

bool is_neighbour(const transport::Address& address) {
  using Scheme = transport::Address::Scheme;
  return address.scheme == Scheme::kShm || address.scheme == Scheme::kIpc;
}

bool has_neighbours(const Topology& topology) {
  return std::any_of(
      topology.shard_addresses.begin(), topology.shard_addresses.end(),
      [](const auto& addresses) { return !addresses.empty() && is_neighbour(addresses.front()); });
}

TopologyPtr TopologySource::latest() const {
  const std::lock_guard lock(mutex_);
  return latest_;
}

void TopologySource::set(Topology topology) {
  const std::lock_guard lock(mutex_);
  latest_ = std::make_shared<const Topology>(std::move(topology));
  // Under the lock, so that nobody is woken after `unsubscribe`.
  for (const auto& [id, wake] : wakers_) wake();
}

void TopologySource::report(Reach reach) {
  const std::lock_guard lock(mutex_);
  reach_ = std::move(reach);
}

Reach TopologySource::reach() const {
  const std::lock_guard lock(mutex_);
  return reach_;
}

TopologySource::Subscription TopologySource::subscribe(std::function<void()> wake) {
  const std::lock_guard lock(mutex_);
  wakers_.emplace(next_, std::move(wake));
  return next_++;
}

void TopologySource::unsubscribe(Subscription subscription) {
  const std::lock_guard lock(mutex_);
  wakers_.erase(subscription);
}

}  // namespace moesaic
