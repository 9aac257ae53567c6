#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "common/base/result.hpp"
#include "common/cluster/placement_file.hpp"
#include "common/cluster/placement_table.hpp"
#include "common/cluster/view.hpp"

namespace moesaic::cluster {

/// What can be said without knowing the shards.
/// @errors kInvalidArgument: a layer or expert the model does not have, a dense layer, an expert
/// nobody holds or that is given twice to the same shard
[[nodiscard]] Result<void> check_placement(const PlacementFile& file,
                                           const ExpertGeometry& geometry);

/// The table for these shards (their role is not looked at), with the file's epoch; only shards
/// that hold something are in it, by name.
/// @errors those of check_placement; kUnavailable: too few shards match; kTooLarge: over a shard's
/// capacity (0: not told, not checked), or more than kMaxShards
[[nodiscard]] Result<PlacementTable> resolve_placement(const PlacementFile& file,
                                                       const ExpertGeometry& geometry,
                                                       std::span<const Member> shards);

/// Without a file: even ranges over all these shards, by name; over the first kMaxShards of them.
/// @errors kTooLarge: over a shard's capacity; kUnavailable: no shard
[[nodiscard]] Result<PlacementTable> default_placement(const ExpertGeometry& geometry,
                                                       std::span<const Member> shards);

/// Weights that shard `shard` of the table holds.
std::uint64_t placed_bytes(const PlacementTable& table, const ExpertGeometry& geometry,
                           std::size_t shard);

/// Bytes for people: "1.50 GiB".
std::string bytes_text(std::uint64_t bytes);

}  // namespace moesaic::cluster
