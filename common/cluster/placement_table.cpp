#include "common/cluster/placement_table.hpp"

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

}  // namespace moesaic::cluster
