#include "common/engine/owner_choice.hpp"

#include <bit>

namespace moesaic {
namespace {

using cluster::ShardSet;

constexpr ShardSet kOne = 1;

/// Spreads consecutive numbers: steps of any length visit all replicas.
std::uint32_t mixed(std::uint32_t number) { return (number * 2654435761U) >> 16U; }

/// The member of `among` that covers most of `left`; among equals the least loaded, and among those
/// another one with each `rotation`.
std::size_t best_of(ShardSet among, std::uint64_t left, std::span<const ShardSet> owners,
                    std::span<const std::uint64_t> load, std::uint32_t rotation) {
  ShardSet best = 0;
  int best_covers = -1;
  std::uint64_t best_load = 0;
  for (std::size_t shard = 0; shard < load.size(); ++shard) {
    if ((among & (kOne << shard)) == 0) continue;
    int covers = 0;
    for (auto rest = left; rest != 0; rest &= rest - 1)
      covers +=
          static_cast<int>(owners[static_cast<std::size_t>(std::countr_zero(rest))] >> shard & 1U);
    const bool better = covers > best_covers || (covers == best_covers && load[shard] < best_load);
    if (!better && (covers != best_covers || load[shard] != best_load)) continue;
    if (better) best = 0;
    best |= kOne << shard;
    best_covers = covers;
    best_load = load[shard];
  }
  for (auto skip = mixed(rotation) % static_cast<unsigned>(std::popcount(best)); skip > 0; --skip)
    best &= best - 1;
  return static_cast<std::size_t>(std::countr_zero(best));
}

}  // namespace

void choose_owners(std::span<const ShardSet> owners, ShardSet usable,
                   std::span<std::uint64_t> wanted, std::span<std::uint64_t> load,
                   std::uint32_t rotation, std::vector<std::uint64_t>& asked) {
  const auto rows = wanted.size();
  asked.assign(load.size() * rows, 0);
  for (std::size_t row = 0; row < rows; ++row) {
    std::uint64_t homeless = 0, open = 0;
    ShardSet touched = 0;
    const auto give = [&](std::size_t expert, std::size_t shard) {
      asked[shard * rows + row] |= std::uint64_t{1} << expert;
      ++load[shard];
      touched |= kOne << shard;
    };
    // Experts of one owner leave no choice, and name shards that the row visits anyway.
    for (auto rest = wanted[row]; rest != 0; rest &= rest - 1) {
      const auto expert = static_cast<std::size_t>(std::countr_zero(rest));
      const auto can = expert < owners.size() ? owners[expert] & usable : 0;
      if (can == 0) {
        homeless |= std::uint64_t{1} << expert;
      } else if (std::has_single_bit(can)) {
        give(expert, static_cast<std::size_t>(std::countr_zero(can)));
      } else {
        open |= std::uint64_t{1} << expert;
      }
    }
    while (open != 0) {
      std::uint64_t left = 0;
      for (auto rest = open; rest != 0; rest &= rest - 1) {
        const auto expert = static_cast<std::size_t>(std::countr_zero(rest));
        const auto can = owners[expert] & usable & touched;
        if (can == 0) {
          left |= std::uint64_t{1} << expert;
        } else {
          give(expert, best_of(can, 0, owners, load, rotation));
        }
      }
      open = left;
      if (open != 0) touched |= kOne << best_of(usable, open, owners, load, rotation);
    }
    wanted[row] = homeless;
  }
}

std::string missing_shards(const cluster::PlacementTable& placement, ShardSet alive) {
  if (placement.epoch == 0) return "there is no placement yet";
  ShardSet missing = 0;
  for (const auto owners : placement.owners)
    if ((owners & alive) == 0) missing |= owners;
  std::string names;
  for (std::size_t i = 0; i < placement.shards.size(); ++i)
    if ((missing >> i & 1U) != 0) names += (names.empty() ? "" : ", ") + placement.shards[i];
  return names;
}

}  // namespace moesaic
