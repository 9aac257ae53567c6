#include <gtest/gtest.h>

#include "tests/support/expert_cluster.hpp"
#include "tests/support/moe_rows.hpp"

// One layer of experts at the published model's full width, weights from the formula.
namespace moesaic {
namespace {

TEST(MoeTopologyWideTest, NoPlacementChangesABit) {
  ModelOptions options;
  options.synthetic = std::string(MOESAIC_SOURCE_DIR) + "/configs/models/ernie-4.5-vl-28b-a3b.json";
  options.layers = 2;
  const auto opened = open_model(options);
  ASSERT_TRUE(opened) << opened.error().what;
  LoadedModel model;
  model.config = opened->config;
  model.compute = opened->compute;
  model.pool = opened->pool;
  auto gates = load_routers(model.config, *opened->source);
  ASSERT_TRUE(gates) << gates.error().what;
  model.gates = std::make_shared<const RouterWeights>(std::move(*gates));
  const auto everything = shard_placement(model.config, model.compute, 1);
  auto experts = add_layer(*opened, no_experts(*opened), everything, "expert-shard-0", 1);
  ASSERT_TRUE(experts) << experts.error().what;
  model.experts.push_back(std::move(*experts));

  const test::MoeRows rows(model, 7);
  const auto want = rows.local();
  for (const auto& placement : {shard_placement(model.config, model.compute, 2),
                                test::placement_by(model.config, 4, [](auto, auto, auto e) {
                                  return cluster::ShardSet{1} << e % 3 |
                                         cluster::ShardSet{e == 9 ? 8U : 0U};
                                })}) {
    test::ExpertCluster shards(model, placement);
    for (const bool central : {false, true}) {
      const auto backend = central ? shards.central({"router-0"}) : shards.direct();
      const auto got = rows.run(*backend);
      ASSERT_TRUE(got) << got.error().what;
      EXPECT_TRUE(test::same_bits(*got, want)) << placement.shards.size() << " shards";
    }
  }
}

}  // namespace
}  // namespace moesaic
