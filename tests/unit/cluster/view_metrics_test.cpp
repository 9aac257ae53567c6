#include "common/cluster/view_metrics.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic::cluster {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

MemberState shard(const std::string& name, bool alive,
                  std::map<std::string, std::string> labels = {}) {
  MemberState state;
  state.member.role = "expert-shard";
  state.member.name = name;
  state.member.labels = std::move(labels);
  state.alive = alive;
  return state;
}

/// Two MoE layers after a dense one, 4 text and 2 vision experts. Text 0-1 on a, 2-3 on both;
/// vision on b, but its expert 0 of layer 2 on a.
View example() {
  View view;
  view.members = {shard("a", true, {{"node", "n1"}, {"tier", "fast"}}), shard("b", false)};
  auto& table = view.placement;
  table.epoch = 9;
  table.shards = {"a", "b"};
  table.layers = 3;
  table.experts = {4, 2};
  table.owners = {0, 0, 0, 0, 0, 0,   //
                  1, 1, 3, 3, 2, 2,   //
                  1, 1, 3, 3, 1, 2};  //
  return view;
}

TEST(ViewMetricsTest, TellsWhichShardsHoldWhat) {
  ViewMetrics metrics;
  metrics.publish(example());
  const auto text = metrics::expose();
  EXPECT_THAT(text, HasSubstr("\nmoesaic_placement_generation 9\n"));
  const auto placed = [](const std::string& range, const std::string& node,
                         const std::string& shard_name, const std::string& tier) {
    return "moesaic_placement_info{expert_range=\"" + range + "\",node=\"" + node + "\",shard=\"" +
           shard_name + "\",tier=\"" + tier + "\"} 1\n";
  };
  EXPECT_THAT(text, HasSubstr(placed("text 0-1, layers 1-2", "n1", "a", "fast")));
  EXPECT_THAT(text, HasSubstr(placed("text 2-3, layers 1-2", "n1", "a", "fast")));
  EXPECT_THAT(text, HasSubstr(placed("text 2-3, layers 1-2", "", "b", "")));
  EXPECT_THAT(text, HasSubstr(placed("vision 0-1, layers 1", "", "b", "")));
  EXPECT_THAT(text, HasSubstr(placed("vision 0, layers 2", "n1", "a", "fast")));
  EXPECT_THAT(text, HasSubstr(placed("vision 1, layers 2", "", "b", "")));
}

TEST(ViewMetricsTest, CountsReplicasThatAreAlive) {
  ViewMetrics metrics;
  auto view = example();
  metrics.publish(view);
  const auto both = [] {
    return metrics::gauge("moesaic_placement_expert_replicas",
                          {{"expert_range", "text 2-3, layers 1-2"}})
        .value();
  };
  EXPECT_EQ(both(), 1);
  EXPECT_EQ(metrics::gauge("moesaic_placement_expert_replicas",
                           {{"expert_range", "vision 0-1, layers 1"}})
                .value(),
            0);
  view.members[1].alive = true;
  metrics.publish(view);
  EXPECT_EQ(both(), 2);
}

TEST(ViewMetricsTest, WhatLeavesTheViewLeavesTheExposition) {
  ViewMetrics metrics;
  auto view = example();
  metrics.publish(view);
  EXPECT_THAT(metrics::expose(), HasSubstr("moesaic_control_instance_alive{instance=\"b\"} 0\n"));
  EXPECT_THAT(metrics::expose(),
              HasSubstr("moesaic_control_role{instance=\"b\",role=\"expert-shard\"} 1\n"));
  view.members.pop_back();
  for (auto& owners : view.placement.owners) owners = owners ? 1 : 0;
  view.placement.shards = {"a"};
  metrics.publish(view);
  const auto text = metrics::expose();
  EXPECT_THAT(text, Not(HasSubstr("instance=\"b\"")));
  EXPECT_THAT(text, Not(HasSubstr("shard=\"b\"")));
  EXPECT_THAT(text, HasSubstr("moesaic_placement_expert_replicas{expert_range=\"text 0-3, layers "
                              "1-2\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("text 2-3")));
}

}  // namespace
}  // namespace moesaic::cluster
