#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/cluster/placement_table.hpp"

namespace moesaic {

/// Decides which shard computes which of the experts chosen for each row. A row goes to as few
/// shards as can be; where several do equally, to the one with the least to do, so that replicas
/// share the work. The choice never changes a bit of the result.
/// @param owners   [experts] of one layer and modality
/// @param usable   shards that may be asked
/// @param wanted   [rows] masks of experts to place; out: those that no usable shard owns
/// @param load     [shards] pairs of row and expert each shard has to do; what is placed is added
/// @param rotation where the search begins among equals; differs from layer to layer and step to
///                 step
/// @param asked    out: [shards][rows] masks of experts each shard is to compute
void choose_owners(std::span<const cluster::ShardSet> owners, cluster::ShardSet usable,
                   std::span<std::uint64_t> wanted, std::span<std::uint64_t> load,
                   std::uint32_t rotation, std::vector<std::uint64_t>& asked);

/// Which shards are missing, for people: those not in `alive` that own an expert nobody in `alive`
/// owns. Empty: every expert is owned by somebody alive.
std::string missing_shards(const cluster::PlacementTable& placement, cluster::ShardSet alive);

}  // namespace moesaic
