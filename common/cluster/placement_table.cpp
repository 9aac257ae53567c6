#include "common/cluster/placement_table.hpp"

#include <algorithm>

namespace moesaic::cluster {

PlacementTable PlacementTable::even_ranges(const ExpertGeometry& geometry,
                                           std::vector<std::string> names) {
  PlacementTable table;
  table.epoch = 1;
  table.shards = std::move(names);
  table.layers = static_cast<std::uint32_t>(geometry.layer_is_moe.size());
  table.experts = geometry.experts;
  table.owners.resize(table.layers * (table.experts[0] + table.experts[1]));
  for (std::size_t layer = 0; layer < table.layers; ++layer) {
    if (!geometry.layer_is_moe[layer]) continue;
    for (std::size_t pool = 0; pool < kPools; ++pool)
      for (std::size_t e = 0; e < table.experts[pool]; ++e)
        table.owners[table.index(layer, pool, e)] =
            ShardSet{1} << (e * table.shards.size() / table.experts[pool]);
  }
  return table;
}

bool PlacementTable::consistent() const {
  if (shards.size() > kMaxShards) return false;
  const auto width = std::uint64_t{experts[0]} + experts[1];
  if (width == 0 || layers == 0) return owners.empty();
  if (owners.size() / width != layers || owners.size() % width != 0) return false;
  const auto known =
      shards.size() == kMaxShards ? ~ShardSet{0} : (ShardSet{1} << shards.size()) - 1;
  return std::all_of(owners.begin(), owners.end(),
                     [&](ShardSet set) { return (set & ~known) == 0; });
}

}  // namespace moesaic::cluster
