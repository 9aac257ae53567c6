// Input: a placement file. What is accepted and resolved gives every expert an owner among at most
// 64 shards, and no shard twice.
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string_view>

#include "common/cluster/placement_resolve.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace moesaic::cluster;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto file = parse_placement(text, "input");
  if (!file) return 0;
  ExpertGeometry geometry;
  geometry.layer_is_moe = {false, true, true};
  geometry.experts = {8, 4};
  geometry.expert_bytes = {100, 50};
  std::vector<Member> shards(3);
  for (std::size_t i = 0; i < shards.size(); ++i) {
    shards[i].name = "s" + std::to_string(i);
    shards[i].labels = {{"node", i == 0 ? "a" : "b"}, {"memory_gib", std::to_string(8 * i)}};
  }
  const auto table = resolve_placement(*file, geometry, shards);
  if (!table) return 0;
  const std::set<std::string> names(table->shards.begin(), table->shards.end());
  if (names.size() != table->shards.size() || names.empty()) std::abort();
  for (std::size_t layer = 1; layer < 3; ++layer)
    for (std::size_t pool = 0; pool < kPools; ++pool)
      for (std::size_t e = 0; e < geometry.experts[pool]; ++e)
        if (table->at(layer, pool, e) == 0 || table->at(layer, pool, e) >> names.size() != 0)
          std::abort();
  return 0;
}
