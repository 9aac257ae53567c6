#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/transport/failure.hpp"
#include "tests/unit/cluster/simulated_cluster.hpp"

namespace moesaic::cluster::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using testing::IsEmpty;
using transport::FrameType;

/// Text experts before and after `cut` on two shards, vision experts on both.
std::string halves(const std::string& first, const std::string& second, unsigned cut) {
  return "shards:\n  - match: {name: " + first + "}\n    experts: [{modality: text, experts: \"0-" +
         std::to_string(cut) + "\"}, {modality: vision}]\n  - match: {name: " + second +
         "}\n    experts: [{modality: text, experts: \"" + std::to_string(cut + 1) +
         "-7\"}, {modality: vision}]\n";
}

transport::Frame place(const std::string& yaml, std::uint64_t sequence = 1) {
  auto frame = make_message(FrameType::kPlace, Place{yaml});
  frame.sequence = sequence;
  return frame;
}

class PlacementChangeTest : public testing::Test {
 protected:
  void start_all(SimulatedCluster& cluster, unsigned shards = 4) {
    for (unsigned i = 0; i < shards; ++i) cluster.start("expert-shard", "s" + std::to_string(i));
    cluster.start("decoder", "d0");
    cluster.start("decoder", "d1");
    ASSERT_TRUE(cluster.run_until([&] { return cluster.view().ready; }));
    cluster.run(seconds(2));
  }
  /// Every expert can be computed for both decoders, all the time.
  void expect_served(SimulatedCluster& cluster, milliseconds time) {
    const auto end = cluster.now + time;
    while (cluster.now < end) {
      cluster.run(milliseconds(10));
      for (const auto* name : {"d0", "d1"})
        ASSERT_THAT(cluster.unserved(name), IsEmpty())
            << name << ", epoch " << cluster.view().placement.epoch;
    }
  }
  bool answered(SimulatedCluster& cluster, std::size_t count = 1) {
    return cluster.run_until([&] { return cluster.answers.size() >= count; });
  }
};

TEST_F(PlacementChangeTest, FourShardsStartTogetherAndShareEvenly) {
  SimulatedCluster cluster;
  start_all(cluster);
  EXPECT_EQ(cluster.view().placement.shards, (std::vector<std::string>{"s0", "s1", "s2", "s3"}));
  EXPECT_EQ(cluster.view().placement.epoch, 1U) << "one placement, not one per shard";
  for (const auto* shard : {"s0", "s1", "s2", "s3"}) EXPECT_EQ(cluster.held(shard).size(), 9U);
}

TEST_F(PlacementChangeTest, TwentyChangesNeverLeaveAnExpertWithoutItsOwner) {
  SimulatedCluster cluster;
  start_all(cluster);
  cluster.on_pushed = [&](const View& view) {
    const auto& table = view.placement;
    for (std::size_t layer = 1; layer < table.layers; ++layer)
      for (std::size_t pool = 0; pool < kPools; ++pool)
        for (std::size_t e = 0; e < table.experts[pool]; ++e) {
          bool owned = false;
          for (std::size_t s = 0; s < table.shards.size(); ++s)
            owned = owned || ((table.at(layer, pool, e) >> s & 1) != 0 &&
                              view.find("expert-shard", table.shards[s])->alive &&
                              cluster.held(table.shards[s]).contains({layer, pool, e}));
          ASSERT_TRUE(owned) << "version " << view.version << ": layer " << layer << " pool "
                             << pool << " expert " << e;
        }
  };
  for (unsigned i = 0; i < 20; ++i) {
    const auto first = i % 4;
    const auto second = (first + 1 + i / 4 % 3) % 4;
    cluster.ask(place(halves("s" + std::to_string(first), "s" + std::to_string(second), i % 7)));
    expect_served(cluster, milliseconds(600));
    ASSERT_TRUE(answered(cluster, i + 1));
    ASSERT_EQ(cluster.answers[i].type, FrameType::kView)
        << transport::read_failure(cluster.answers[i]).what;
  }
  EXPECT_EQ(cluster.view().placement.epoch, cluster.stored_epoch);
  EXPECT_TRUE(cluster.view().ready);
}

TEST_F(PlacementChangeTest, SwitchesLayerByLayerUnderOneEpoch) {
  SimulatedCluster cluster;
  cluster.load_time = milliseconds(200);
  start_all(cluster, 2);
  std::set<std::pair<std::uint32_t, std::vector<ShardSet>>> tables;
  cluster.on_pushed = [&](const View& view) {
    tables.emplace(view.placement.epoch, view.placement.owners);
  };
  cluster.ask(place(halves("s0", "s1", 6)));
  ASSERT_TRUE(answered(cluster));
  // Layers 1, 2 and 3 one after the other; the epoch is the next one from the first on.
  ASSERT_EQ(tables.size(), 3U);
  for (const auto& [epoch, owners] : tables) EXPECT_EQ(epoch, 2U);
}

TEST_F(PlacementChangeTest, OldExpertsAreLetGoWhenEveryDispatcherHasMovedOn) {
  SimulatedCluster cluster;
  start_all(cluster, 2);
  cluster.ask(place(halves("s0", "s1", 6)));
  ASSERT_TRUE(answered(cluster));
  cluster.run(milliseconds(200));
  EXPECT_EQ(cluster.held("s0").size(), 3 * (7U + 4U));
  EXPECT_EQ(cluster.held("s1").size(), 3 * (1U + 4U));
}

TEST_F(PlacementChangeTest, AFrozenDispatcherHoldsTheReleaseUpUntilItsLeaseEnds) {
  SimulatedCluster cluster;
  start_all(cluster, 2);
  cluster.cut("d1");
  cluster.ask(place(halves("s0", "s1", 6)));
  cluster.run(milliseconds(500));
  EXPECT_THAT(cluster.answers, IsEmpty());
  EXPECT_THAT(cluster.unserved("d1"), IsEmpty()) << "its old view still works";
  EXPECT_TRUE(answered(cluster));
  EXPECT_TRUE(cluster.logged("decoder \"d1\" is lost: no heartbeat for 1000 ms"));
}

TEST_F(PlacementChangeTest, AShardThatCannotLoadAbortsTheChangeAndTheAskerHearsWhy) {
  SimulatedCluster cluster;
  start_all(cluster, 2);
  const auto before = cluster.view().placement;
  cluster.load_error["s1"] = "model.safetensors: cannot be read";
  cluster.ask(place(halves("s0", "s1", 6)));
  expect_served(cluster, seconds(1));
  ASSERT_TRUE(answered(cluster));
  ASSERT_EQ(cluster.answers[0].type, FrameType::kFailure);
  EXPECT_EQ(transport::read_failure(cluster.answers[0]).what,
            "shard \"s1\" cannot prepare placement 2: model.safetensors: cannot be read");
  EXPECT_EQ(cluster.view().placement, before);
  cluster.run(seconds(1));
  EXPECT_EQ(cluster.held("s0").size(), 18U) << "what was loaded for nothing is let go";

  cluster.load_error.clear();
  cluster.ask(place(halves("s0", "s1", 6), 2));
  ASSERT_TRUE(answered(cluster, 2));
  EXPECT_EQ(cluster.answers[1].type, FrameType::kView) << "the next change works";
}

TEST_F(PlacementChangeTest, AbortedHalfWayEverythingMovesBack) {
  SimulatedCluster cluster;
  cluster.load_time = milliseconds(200);
  start_all(cluster, 2);
  const auto before = cluster.view().placement;
  cluster.ask(place(halves("s0", "s1", 6)));
  cluster.run_until([&] { return cluster.view().placement.epoch == 2; });
  cluster.load_error["s1"] = "no space";
  expect_served(cluster, seconds(2));
  ASSERT_TRUE(answered(cluster));
  EXPECT_EQ(cluster.answers[0].type, FrameType::kFailure);
  EXPECT_EQ(cluster.view().placement.owners, before.owners);
  EXPECT_EQ(cluster.view().placement.epoch, 3U) << "an epoch is never used twice";
  EXPECT_EQ(cluster.held("s0").size(), 18U);
}

TEST_F(PlacementChangeTest, AShardThatRestartsInTheMiddleIsAskedAgain) {
  SimulatedCluster cluster;
  cluster.load_time = milliseconds(100);
  start_all(cluster, 2);
  cluster.ask(place(halves("s0", "s1", 6)));
  cluster.run(milliseconds(150));
  cluster.kill("s1");
  cluster.run(seconds(1));
  EXPECT_FALSE(cluster.view().ready);
  EXPECT_THAT(cluster.view().missing, HasSubstr("of s1"));
  cluster.start("expert-shard", "s1");
  ASSERT_TRUE(answered(cluster));
  EXPECT_EQ(cluster.answers[0].type, FrameType::kView);
  EXPECT_TRUE(cluster.run_until([&] { return cluster.view().ready; }));
  expect_served(cluster, seconds(1));
}

TEST_F(PlacementChangeTest, AnEmptyShardIsNotReadyBeforeItHasLoaded) {
  SimulatedCluster cluster;
  start_all(cluster, 2);
  cluster.load_time = milliseconds(300);
  cluster.kill("s1");
  cluster.start("expert-shard", "s1");
  cluster.run(milliseconds(100));
  const auto* shard = cluster.view().find("expert-shard", "s1");
  ASSERT_NE(shard, nullptr);
  EXPECT_TRUE(shard->alive);
  EXPECT_FALSE(shard->load.ready);
  EXPECT_EQ(shard->load.detail, "has loaded 0 of 3 layers");
  EXPECT_FALSE(cluster.view().ready);
  EXPECT_TRUE(cluster.run_until([&] { return cluster.view().ready; }));
  EXPECT_EQ(cluster.view().placement.epoch, 1U) << "its return is no change";
}

TEST_F(PlacementChangeTest, LostMessagesDelayAChangeAndBreakNothing) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    SimulatedCluster cluster({}, seed);
    start_all(cluster, 3);
    cluster.loss = 0.2;
    for (unsigned i = 0; i < 4; ++i) {
      cluster.ask(place(halves("s" + std::to_string(i % 3), "s" + std::to_string((i + 1) % 3), i)));
      for (int n = 0; n < 1000 && cluster.answers.size() <= i; ++n)
        expect_served(cluster, milliseconds(50));
      ASSERT_EQ(cluster.answers.size(), i + 1) << "seed " << seed;
    }
  }
}

TEST_F(PlacementChangeTest, ARestartedRouterRebuildsThePlacementWhileTheOldOneServes) {
  SimulatedCluster cluster;
  start_all(cluster, 4);
  cluster.ask(place(halves("s0", "s1", 6)));
  ASSERT_TRUE(answered(cluster));
  cluster.kill_router();
  expect_served(cluster, seconds(3));
  cluster.start_router();
  expect_served(cluster, seconds(5));
  EXPECT_TRUE(cluster.view().ready) << cluster.view().missing;
  EXPECT_EQ(cluster.view().placement.shards.size(), 4U) << "what was placed by hand is soft state";
}

TEST_F(PlacementChangeTest, AShardThatComesFromANewerPlacementIsCaughtUpWith) {
  SimulatedCluster cluster;
  start_all(cluster, 2);
  for (unsigned i = 0; i < 3; ++i) {
    cluster.ask(place(halves("s0", "s1", i)));
    ASSERT_TRUE(answered(cluster, i + 1));
  }
  // All but s1, which nobody can reach, start anew: numbers begin at 1.
  cluster.kill_router();
  cluster.kill("s0");
  cluster.kill("d0");
  cluster.kill("d1");
  cluster.cut("s1");
  cluster.start_router();
  cluster.start("expert-shard", "s0");
  cluster.start("decoder", "d0");
  cluster.start("decoder", "d1");
  cluster.run(seconds(4));
  EXPECT_EQ(cluster.view().placement.epoch, 1U);
  cluster.mend("s1");
  EXPECT_TRUE(cluster.run_until(
      [&] { return cluster.view().placement.epoch > 4 && cluster.view().ready; }));
  cluster.run(seconds(1));
  expect_served(cluster, seconds(1));
}

TEST_F(PlacementChangeTest, ANewShardWithoutAFileTakesItsShare) {
  SimulatedCluster cluster;
  start_all(cluster, 2);
  cluster.start("expert-shard", "s2");
  expect_served(cluster, seconds(4));
  EXPECT_EQ(cluster.view().placement.shards.size(), 3U);
  EXPECT_EQ(cluster.view().placement.epoch, 2U);
}

TEST_F(PlacementChangeTest, AShardGoneForAMinuteIsReplacedByTheOthers) {
  SimulatedCluster cluster;
  start_all(cluster, 3);
  cluster.kill("s1");
  cluster.run(seconds(55));
  EXPECT_EQ(cluster.view().placement.shards.size(), 3U) << "it may come back";
  EXPECT_TRUE(cluster.run_until([&] { return cluster.view().ready; }));
  EXPECT_EQ(cluster.view().placement.shards, (std::vector<std::string>{"s0", "s2"}));
}

TEST_F(PlacementChangeTest, ADrainedShardGivesItsExpertsAwayFirst) {
  SimulatedCluster cluster;
  start_all(cluster, 3);
  auto frame = make_message(FrameType::kDrain, Drain{"expert-shard", "s2"});
  frame.sequence = 9;
  cluster.ask(std::move(frame));
  expect_served(cluster, seconds(2));
  ASSERT_TRUE(answered(cluster));
  EXPECT_EQ(cluster.answers[0].type, FrameType::kView);
  EXPECT_EQ(cluster.answers[0].sequence, 9U);
  EXPECT_EQ(cluster.view().placement.shards, (std::vector<std::string>{"s0", "s1"}));
  EXPECT_TRUE(cluster.view().find("expert-shard", "s2")->load.draining);
}

TEST_F(PlacementChangeTest, TheLastShardCannotBeDrained) {
  SimulatedCluster cluster;
  start_all(cluster, 1);
  cluster.ask(make_message(FrameType::kDrain, Drain{"expert-shard", "s0"}));
  ASSERT_EQ(cluster.answers.size(), 1U);
  EXPECT_EQ(transport::read_failure(cluster.answers[0]).what,
            "shard \"s0\" cannot be drained: even ranges: no shard is registered");
}

TEST_F(PlacementChangeTest, OneChangeAtATime) {
  SimulatedCluster cluster;
  cluster.load_time = milliseconds(200);
  start_all(cluster, 2);
  cluster.ask(place(halves("s0", "s1", 6)));
  cluster.run(milliseconds(50));
  cluster.ask(place(halves("s0", "s1", 2), 2));
  ASSERT_EQ(cluster.answers.size(), 1U);
  EXPECT_EQ(transport::read_failure(cluster.answers[0]).what,
            "a change to placement 2 is under way, 0 of 3 layers");
  ASSERT_TRUE(answered(cluster, 2));
  EXPECT_EQ(cluster.answers[1].sequence, 1U);
}

TEST_F(PlacementChangeTest, AChangeThatNeedsTooMuchMemoryOnTheWayIsRefused) {
  SimulatedCluster cluster;
  cluster.start("expert-shard", "s0", {}, 20'000);
  cluster.start("expert-shard", "s1", {}, 20'000);
  cluster.start("decoder", "d0");
  ASSERT_TRUE(cluster.run_until([&] { return cluster.view().ready; }));
  cluster.run(seconds(1));
  // Each half fits, 15 kB and 3 * (4 + 4) * 1000 + 3 * 2 * 500 do not.
  cluster.ask(
      place("shards:\n"
            "  - match: {name: s1}\n    experts: [{modality: text, experts: \"0-3\"}, {modality: "
            "vision, experts: \"0-1\"}]\n"
            "  - match: {name: s0}\n    experts: [{modality: text, experts: \"4-7\"}, {modality: "
            "vision, experts: \"2-3\"}]\n"));
  ASSERT_EQ(cluster.answers.size(), 1U);
  EXPECT_EQ(
      transport::read_failure(cluster.answers[0]).what,
      "shard \"s0\" would hold 29.30 KiB of experts while the placement changes, its capacity "
      "is 19.53 KiB");
}

}  // namespace
}  // namespace moesaic::cluster::test
