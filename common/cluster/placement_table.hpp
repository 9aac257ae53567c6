#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/transport/bytes.hpp"

namespace moesaic::cluster {

/// Expert pools of a layer: 0 text, 1 vision, as moesaic::Modality counts them.
inline constexpr std::size_t kPools = 2;

/// What there is to place: the sizes of a model, without the model.
struct ExpertGeometry {
  std::vector<bool> layer_is_moe;                    ///< [layers]
  std::array<std::uint32_t, kPools> experts{};       ///< of each MoE layer
  std::array<std::uint64_t, kPools> expert_bytes{};  ///< weights of one expert, as served
  std::uint32_t hidden = 0;
  std::uint32_t top_k = 0;
  std::uint32_t row_bytes = 0;   ///< one row on its way to a shard
  std::uint32_t node_bytes = 0;  ///< one tree node on its way back
};

/// A set of shards: bit i is PlacementTable::shards[i].
using ShardSet = std::uint64_t;
inline constexpr std::size_t kMaxShards = 64;

/// Which shards hold an expert: {epoch, layer, modality, expert -> shards}. Values; copied freely.
struct PlacementTable {
  std::uint32_t epoch = 0;          ///< 0: no placement yet
  std::vector<std::string> shards;  ///< member names, at most kMaxShards
  std::uint32_t layers = 0;
  std::array<std::uint32_t, kPools> experts{};
  std::vector<ShardSet> owners;  ///< [layers][text experts, then vision experts]; dense layers: 0

  std::size_t index(std::size_t layer, std::size_t pool, std::size_t expert) const {
    return layer * (experts[0] + experts[1]) + (pool == 0 ? 0 : experts[0]) + expert;
  }
  ShardSet at(std::size_t layer, std::size_t pool, std::size_t expert) const {
    return owners[index(layer, pool, expert)];
  }
  bool operator==(const PlacementTable&) const = default;

  /// Sizes agree and owners are among `shards`: must hold of every table that a peer sends.
  bool consistent() const;

  /// Every MoE layer of `geometry` in aligned ranges of equal size over `names`; epoch 1.
  static PlacementTable even_ranges(const ExpertGeometry& geometry, std::vector<std::string> names);
};

template <class Codec>
void fields(Codec& codec, PlacementTable& table) {
  codec(table.epoch);
  codec(table.shards);
  codec(table.layers);
  codec(table.experts[0]);
  codec(table.experts[1]);
  codec(table.owners);
}

}  // namespace moesaic::cluster
