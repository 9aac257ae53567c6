#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/result.hpp"

namespace moesaic::cluster {

/// What a user writes to say which shards hold which experts:
///
///     epoch: 1
///     shards:
///       - match: {node: a}
///         experts: [{layers: "1-27", modality: text, experts: "0-31"}]
///       - match: {tier: fast, memory_gib: ">=16"}
///         replicas: 2
///         experts: [{experts: "32-63,70", modality: text}, {modality: vision}]
///
/// `match` compares the labels a shard registers with; `name` is its name; ">=N" compares numbers.
/// Each entry goes to `replicas` (1 unless said) different shards that match it, and a shard
/// serves one entry only; but entries that match by `name` may add to the same shard. Among several
/// ways to do so, shards are taken in order of their names. layers, modality and experts are "all"
/// unless said.
struct PlacementFile {
  using Ranges = std::vector<std::pair<std::uint32_t, std::uint32_t>>;  ///< first, last; empty: all

  struct Experts {
    Ranges layers;
    std::vector<std::size_t> pools;
    Ranges experts;
    int line = 0;
  };
  struct Entry {
    std::map<std::string, std::string> match;
    std::size_t replicas = 1;
    std::vector<Experts> experts;
    int line = 0;
  };

  std::string name;  ///< for texts
  std::uint32_t epoch = 0;
  std::vector<Entry> shards;

  /// Shards that it takes at least.
  std::size_t shards_needed() const;
};

/// @param name of the file, for texts
/// @errors kCorrupt, kInvalidArgument, kTooLarge (file, nesting, entries): `name:line: ...`;
/// aliases and unknown keys are refused
[[nodiscard]] Result<PlacementFile> parse_placement(std::string_view yaml, std::string name);

/// Ranges as they are written: "0-31,40".
std::string ranges_text(const std::vector<std::uint32_t>& ascending);

}  // namespace moesaic::cluster
