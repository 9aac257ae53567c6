#include "common/engine/shard_links.hpp"

#include <algorithm>

#include "common/base/log.hpp"

namespace moesaic {

ShardLinks::Number ShardLinks::number_of(const std::string& name) {
  const auto it =
      std::find_if(shards_.begin(), shards_.end(), [&](const Shard& s) { return s.name == name; });
  if (it != shards_.end()) return static_cast<Number>(it - shards_.begin());
  shards_.push_back({name, {}});
  return shards_.size() - 1;
}

std::vector<ShardLinks::Number> ShardLinks::use(const Topology& topology) {
  std::vector<bool> was_up(shards_.size());
  for (Number shard = 0; shard < shards_.size(); ++shard) was_up[shard] = peer(shard).has_value();
  numbers_.clear();
  for (const auto& name : topology.placement.shards) numbers_.push_back(number_of(name));

  std::vector<std::vector<Path>> wanted(shards_.size());
  for (std::size_t i = 0; i < numbers_.size() && i < topology.shard_addresses.size(); ++i)
    for (const auto& address : topology.shard_addresses[i]) {
      auto& have = shards_[numbers_[i]].paths;
      const auto it = std::find_if(have.begin(), have.end(),
                                   [&](const Path& path) { return path.address == address; });
      if (it != have.end()) {
        wanted[numbers_[i]].push_back(*it);
        have.erase(it);
      } else if (const auto made = endpoint_.connect(address)) {
        wanted[numbers_[i]].push_back({address, *made, false});
      } else {
        log(LogLevel::kWarn, topology.placement.shards[i] + ": " + made.error().what);
      }
    }
  std::vector<Number> lost;
  for (Number shard = 0; shard < shards_.size(); ++shard) {
    for (const auto& path : shards_[shard].paths) endpoint_.close(path.peer);
    shards_[shard].paths = std::move(wanted[shard]);
    if (shard < was_up.size() && was_up[shard] && !peer(shard)) lost.push_back(shard);
  }
  return lost;
}

std::optional<ShardLinks::Number> ShardLinks::note(const transport::Event& event) {
  using Kind = transport::Event::Kind;
  if (event.kind != Kind::kUp && event.kind != Kind::kDown) return std::nullopt;
  for (Number shard = 0; shard < shards_.size(); ++shard)
    for (auto& path : shards_[shard].paths) {
      if (path.peer != event.peer) continue;
      const auto before = peer(shard);
      path.up = event.kind == Kind::kUp;
      if (path.up && event.identity.name != shards_[shard].name) {
        log(LogLevel::kError, shards_[shard].name + ": at " + to_string(path.address) +
                                  " answers " + event.identity.role + " " + event.identity.name);
        path.up = false;
      }
      if (peer(shard) == before) return std::nullopt;
      return shard;
    }
  return std::nullopt;
}

cluster::ShardSet ShardLinks::alive() const {
  cluster::ShardSet set = 0;
  for (std::size_t i = 0; i < numbers_.size(); ++i)
    if (peer(numbers_[i])) set |= cluster::ShardSet{1} << i;
  return set;
}

std::optional<transport::PeerId> ShardLinks::peer(Number shard) const {
  for (const auto& path : shards_[shard].paths)
    if (path.up) return path.peer;
  return std::nullopt;
}

}  // namespace moesaic
