#include "common/engine/topology.hpp"

#include <algorithm>

namespace moesaic {

bool has_neighbours(const Topology& topology) {
  using Scheme = transport::Address::Scheme;
  return std::any_of(topology.shard_addresses.begin(), topology.shard_addresses.end(),
                     [](const auto& addresses) {
                       return !addresses.empty() && (addresses.front().scheme == Scheme::kShm ||
                                                     addresses.front().scheme == Scheme::kIpc);
                     });
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
