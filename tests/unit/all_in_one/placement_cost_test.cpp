#include "services/all_in_one/placement_cost.hpp"

#include <gtest/gtest.h>

#include "services/all_in_one/declared_shards.hpp"

namespace moesaic {
namespace {

/// The published model's shape: 64 text and 64 vision experts, top 6, in `layers` of 28.
cluster::ExpertGeometry full_geometry() {
  cluster::ExpertGeometry geometry;
  geometry.layer_is_moe.assign(28, true);
  geometry.layer_is_moe[0] = false;
  geometry.experts = {64, 64};
  geometry.expert_bytes = {1000, 500};
  geometry.hidden = 2560;
  geometry.top_k = 6;
  geometry.row_bytes = geometry.node_bytes = 5120;
  return geometry;
}

TokenCost even(std::size_t shards) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < shards; ++i) names.push_back("s" + std::to_string(i));
  const auto geometry = full_geometry();
  return token_cost(cluster::PlacementTable::even_ranges(geometry, names), geometry, 0);
}

double nodes(const TokenCost& cost) {
  double sum = 0;
  for (const auto& shard : cost.shards) sum += shard.nodes;
  return sum;
}

TEST(PlacementCostTest, AlignedRangesCostAboutOneNodePerShard) {
  // Rows per token and layer of 6 of 64 experts in 2, 4 and 8 aligned ranges: the chance that a
  // range has any is 1 - C(64 - n, 6) / C(64, 6).
  EXPECT_NEAR(nodes(even(1)), 1, 1e-9);
  EXPECT_NEAR(nodes(even(2)), 2 * 0.98791, 0.02);
  EXPECT_NEAR(nodes(even(4)), 4 * 0.83632, 0.04);
  EXPECT_NEAR(nodes(even(8)), 8 * 0.56694, 0.06);
}

TEST(PlacementCostTest, ScatteredExpertsCostANodeForEachLoneExpert) {
  const auto geometry = full_geometry();
  auto table = cluster::PlacementTable::even_ranges(geometry, {"s0", "s1"});
  for (std::size_t layer = 1; layer < table.layers; ++layer)
    for (std::size_t e = 0; e < 64; ++e) table.owners[table.index(layer, 0, e)] = 1U << (e % 2);
  const auto cost = token_cost(table, geometry, 0);
  EXPECT_GT(nodes(cost), 4.0);
  EXPECT_LE(nodes(cost), 6.0);
  EXPECT_NEAR(cost.shards[0].experts + cost.shards[1].experts, 6, 1e-9);
}

TEST(PlacementCostTest, ReplicasShareTheWork) {
  const auto geometry = full_geometry();
  auto table = cluster::PlacementTable::even_ranges(geometry, {"s0", "s1"});
  for (auto& owners : table.owners)
    if (owners != 0) owners = 3;
  const auto cost = token_cost(table, geometry, 0);
  EXPECT_NEAR(cost.shards[0].asked, 0.5, 0.01) << "a token needs one of them";
  EXPECT_NEAR(cost.shards[1].asked, 0.5, 0.01);
  EXPECT_NEAR(nodes(cost), 1, 1e-9);
}

TEST(PlacementCostTest, BytesAreThoseOfTheFrames) {
  const auto cost = even(1);
  // Question: envelope 72 and four descriptors of 32, the row, ids and weights of 24 bytes, the
  // mask; answer: two descriptors, numbers, the node. Each from a multiple of 64 on.
  EXPECT_NEAR(cost.shards[0].bytes_out, 256 + 5120 + 64 + 64 + 8, 1e-6);
  EXPECT_NEAR(cost.shards[0].bytes_back, 256 + 5120, 1e-6);
  EXPECT_NEAR(cost.shard_bytes(), 256 + 5120 + 136 + 256 + 5120, 1e-6);
}

TEST(PlacementCostTest, ALayerTakesTheBusiestShardAndTheRoundTrips) {
  const auto cost = even(1);
  EXPECT_NEAR(cost.busiest_experts, 6, 1e-9);
  EXPECT_NEAR(layer_seconds(cost, 1'000'000, 1e9, 1e-4, 1), 0.006 + 1e-4, 1e-12);
  EXPECT_NEAR(layer_seconds(cost, 1'000'000, 1e9, 1e-4, 2), 0.006 + 2e-4, 1e-12);
}

TEST(DeclaredShardsTest, LabelsNameAndMemory) {
  const auto shards = declared_shards({"name=a,node=x,memory_gib=1.5", "name=b"});
  ASSERT_TRUE(shards) << shards.error().what;
  EXPECT_EQ((*shards)[0].name, "a");
  EXPECT_EQ((*shards)[0].labels.at("node"), "x");
  EXPECT_EQ((*shards)[0].capacity_bytes, 3ULL << 29);
  EXPECT_EQ((*shards)[1].capacity_bytes, 0U);
}

TEST(DeclaredShardsTest, WhatIsWrongIsQuoted) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"node=x"}, "--shard \"node=x\": name=... is missing"},
      {{"name=a,node"}, "--shard \"name=a,node\": \"node\": expected label=value"},
      {{"name=a,memory_gib=much"},
       "--shard \"name=a,memory_gib=much\": \"memory_gib=much\": expected label=value"},
      {{"name=a", "name=a"}, "--shard \"name=a\": two shards of that name"},
  };
  for (const auto& [texts, text] : cases) {
    const auto shards = declared_shards(texts);
    ASSERT_FALSE(shards);
    EXPECT_EQ(shards.error().what, text);
  }
}

TEST(DeclaredShardsTest, AsFewAreInventedAsTheFileCanDoWith) {
  const auto file = cluster::parse_placement(
      "shards:\n"
      "  - match: {tier: fast, memory_gib: \">=16\"}\n    replicas: 2\n    experts: [{}]\n"
      "  - match: {name: x}\n    experts: [{modality: text}]\n"
      "  - match: {name: x, node: b}\n    experts: [{modality: vision}]\n",
      "p.yaml");
  ASSERT_TRUE(file) << file.error().what;
  const auto shards = invented_shards(*file);
  ASSERT_EQ(shards.size(), file->shards_needed());
  EXPECT_EQ(shards[0].labels.at("memory_gib"), "16");
  EXPECT_EQ(shards[2].name, "x");
  EXPECT_EQ(shards[2].labels.at("node"), "b");
}

}  // namespace
}  // namespace moesaic
