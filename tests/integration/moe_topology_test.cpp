#include <gtest/gtest.h>

#include <chrono>
#include <future>

#include "common/transport/failure.hpp"
#include "tests/support/expert_cluster.hpp"
#include "tests/support/kernel_values.hpp"
#include "tests/support/moe_rows.hpp"
#include "tests/support/running_engine.hpp"

// The routed sum of every row is the same bits wherever the experts are and whatever happens on the
// way.
namespace moesaic {
namespace {

using namespace std::chrono_literals;
using cluster::ShardSet;
using test::ExpertCluster;
using test::Fault;
using transport::FrameType;

StepContext until(std::chrono::milliseconds time) {
  StepContext context;
  context.deadline = context.patience = StepContext::Clock::now() + time;
  return context;
}

using test::load_demo;
using test::MoeRows;

void expect_same(const Result<std::vector<float>>& got, const std::vector<float>& want) {
  ASSERT_TRUE(got) << got.error().what;
  EXPECT_TRUE(test::same_bits(*got, want));
}

class MoeTopologyTest : public testing::TestWithParam<const char*> {
 protected:
  const LoadedModel model = load_demo(GetParam(), 1);
  const MoeRows rows{model, 37};
  const std::vector<float> want = rows.local();
};

TEST_P(MoeTopologyTest, NoPlacementChangesABit) {
  const auto& config = model.config;
  const std::vector<cluster::PlacementTable> placements{
      shard_placement(config, model.compute, 1),
      shard_placement(config, model.compute, 2),
      shard_placement(config, model.compute, 4),
      // Uneven, interleaved, every expert alone, everything everywhere, one hot expert twice, and
      // layers that differ.
      test::placement_by(config, 3,
                         [](auto, auto, auto e) -> ShardSet { return e < 1    ? 1
                                                                     : e < 11 ? 2
                                                                              : 4; }),
      test::placement_by(config, 3, [](auto, auto, auto e) { return ShardSet{1} << e % 3; }),
      test::placement_by(config, 16, [](auto, auto, auto e) { return ShardSet{1} << e; }),
      test::placement_by(config, 3, [](auto, auto, auto) { return ShardSet{7}; }),
      test::placement_by(config, 2,
                         [](auto, auto, auto e) -> ShardSet { return e == 5  ? 3
                                                                     : e < 8 ? 1
                                                                             : 2; }),
      test::placement_by(config, 2,
                         [](auto layer, auto m, auto) { return ShardSet{1} << (layer + m) % 2; }),
  };
  for (const auto& placement : placements) {
    ExpertCluster shards(model, placement);
    expect_same(rows.run(*shards.direct()), want);
    expect_same(rows.run(*shards.central({"router-0"})), want);
    EXPECT_GT(shards.router("router-0").counts().batches, 0U) << "it was not asked";
    std::uint64_t computed = 0;
    for (const auto& name : placement.shards)
      for (const auto count : shards.shard(name).expert_rows()) computed += count;
    EXPECT_EQ(computed, 2U * 37 * 5 * config.experts_per_token) << "each expert of a row once";
  }
}

TEST_P(MoeTopologyTest, ManyDecodersAreServedAtOnce) {
  ExpertCluster shards(model, shard_placement(model.config, model.compute, 2));
  std::vector<std::unique_ptr<ExpertBackend>> decoders;
  decoders.push_back(shards.central({"router-0", "router-1"}));
  decoders.push_back(shards.direct());
  std::vector<LoadedModel> pools(3, model);
  std::vector<std::future<Result<std::vector<float>>>> done;
  for (std::size_t i = 0; i < 3; ++i) {
    pools[i].pool = std::make_shared<ThreadPool>(1);
    decoders.push_back(std::make_unique<RemoteRouter>(
        model.config, model.gates, shards.source,
        shards.endpoint("decoder", "other-" + std::to_string(i)), *pools[i].pool));
  }
  for (auto& decoder : decoders)
    done.push_back(std::async(std::launch::async, [&] { return rows.run(*decoder); }));
  for (auto& result : done) expect_same(result.get(), want);
}

INSTANTIATE_TEST_SUITE_P(Compute, MoeTopologyTest, testing::Values("f32", "bf16"),
                         [](const auto& compute) { return std::string(compute.param); });

/// Two shards; in `replicas` both hold everything.
class MoeFaultTest : public testing::Test {
 protected:
  static const LoadedModel& model() {
    static const auto loaded = load_demo("bf16", 1);
    return loaded;
  }
  static cluster::PlacementTable replicas() {
    return test::placement_by(model().config, 2, [](auto, auto, auto) { return ShardSet{3}; });
  }
  static cluster::PlacementTable halves() {
    return shard_placement(model().config, model().compute, 2);
  }
  const MoeRows rows{model(), 9};
  const std::vector<float> want = rows.local();
};

/// Applies a fault to the n-th frame of a type, once.
test::Faults::Rule once(FrameType type, int n, Fault fault) {
  return [type, n, fault](const transport::Frame& frame) mutable {
    return frame.type == type && n-- == 0 ? fault : Fault::kNone;
  };
}

TEST_F(MoeFaultTest, WhateverHappensToAnAnswerAReplicaTakesOver) {
  for (const auto fault :
       {Fault::kTruncate, Fault::kRepeat, Fault::kCloseInstead, Fault::kCloseAfter}) {
    ExpertCluster shards(model(), replicas());
    const auto backend = shards.direct();
    expect_same(rows.run(*backend), want);
    for (int n = 0; n < 4; ++n) {
      shards.faults("expert-shard-0").outgoing(once(FrameType::kExpertNodes, n, fault));
      shards.faults("expert-shard-1").outgoing(once(FrameType::kExpertNodes, n + 1, fault));
      expect_same(rows.run(*backend, until(5s)), want);
    }
  }
}

TEST_F(MoeFaultTest, WithoutAReplicaABrokenConnectionIsWaitedFor) {
  for (const auto fault : {Fault::kTruncate, Fault::kCloseInstead, Fault::kCloseAfter}) {
    ExpertCluster shards(model(), halves());
    const auto backend = shards.direct();
    shards.faults("expert-shard-1").outgoing(once(FrameType::kExpertNodes, 2, fault));
    expect_same(rows.run(*backend, until(5s)), want);
  }
}

TEST_F(MoeFaultTest, ALostQuestionIsAskedOfTheReplica) {
  ExpertCluster shards(model(), replicas());
  FanOutOptions options;
  options.question_timeout = 100ms;
  const auto backend = shards.direct(options);
  shards.faults("expert-shard-0").incoming(once(FrameType::kExpertRows, 1, Fault::kDrop));
  expect_same(rows.run(*backend, until(5s)), want);
}

TEST_F(MoeFaultTest, ALateAnswerIsNotCountedTwice) {
  ExpertCluster shards(model(), replicas());
  FanOutOptions options;
  options.question_timeout = 30ms;
  const auto backend = shards.direct(options);
  shards.faults("expert-shard-0").delay = 100ms;
  shards.faults("expert-shard-0").incoming(once(FrameType::kExpertRows, 1, Fault::kDelay));
  expect_same(rows.run(*backend, until(5s)), want);
  std::this_thread::sleep_for(150ms);
  expect_same(rows.run(*backend, until(5s)), want);
}

TEST_F(MoeFaultTest, ASlowShardWithoutAReplicaIsNoFailure) {
  ExpertCluster shards(model(), halves());
  FanOutOptions options;
  options.question_timeout = 20ms;
  const auto backend = shards.direct(options);
  shards.faults("expert-shard-0").delay = 120ms;
  shards.faults("expert-shard-0").incoming(once(FrameType::kExpertRows, 1, Fault::kDelay));
  expect_same(rows.run(*backend, until(5s)), want);
}

TEST_F(MoeFaultTest, AReplicaTakesOverWithinTheStep) {
  ExpertCluster shards(model(), replicas());
  const auto backend = shards.direct();
  expect_same(rows.run(*backend), want);
  shards.stop_shard("expert-shard-0");
  const auto begun = StepContext::Clock::now();
  expect_same(rows.run(*backend, until(5s)), want);
  EXPECT_LT(StepContext::Clock::now() - begun, 1s);
}

TEST_F(MoeFaultTest, AMissingShardIsWaitedForAndThenNamed) {
  ExpertCluster shards(model(), halves());
  const auto backend = shards.direct();
  expect_same(rows.run(*backend), want);
  shards.stop_shard("expert-shard-1");
  const auto begun = StepContext::Clock::now();
  const auto failed = rows.run(*backend, until(300ms));
  const auto took = StepContext::Clock::now() - begun;
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Errc::kExpertUnavailable);
  EXPECT_NE(failed.error().what.find("expert-shard-1"), std::string::npos) << failed.error().what;
  EXPECT_GE(took, 290ms);
  EXPECT_LT(took, 400ms);
  auto waiting = std::async(std::launch::async, [&] { return rows.run(*backend, until(10s)); });
  std::this_thread::sleep_for(100ms);
  shards.start_shard("expert-shard-1");
  expect_same(waiting.get(), want);
}

TEST_F(MoeFaultTest, AnInterruptEndsAWaitForAMissingShard) {
  ExpertCluster shards(model(), halves());
  const auto backend = shards.direct();
  shards.stop_shard("expert-shard-0");
  auto waiting = std::async(std::launch::async, [&] { return rows.run(*backend, until(10s)); });
  std::this_thread::sleep_for(50ms);
  backend->interrupt();
  const auto ended = waiting.get();
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, Errc::kCancelled);
}

TEST_F(MoeFaultTest, ANewPlacementEndsAWait) {
  ExpertCluster shards(model(), halves());
  const auto backend = shards.direct();
  shards.stop_shard("expert-shard-1");
  auto waiting = std::async(std::launch::async, [&] { return rows.run(*backend, until(10s)); });
  std::this_thread::sleep_for(50ms);
  auto all = test::placement_by(model().config, 2, [](auto, auto, auto) { return ShardSet{1}; });
  all.epoch = 2;
  shards.shard("expert-shard-0").set_table(model().experts.front(), {1, 2});
  shards.place(all);
  expect_same(waiting.get(), want);
  EXPECT_EQ(shards.source->reach().adopted, shards.source->latest()->version);
  EXPECT_EQ(shards.source->reach().missing, "");
}

TEST_F(MoeFaultTest, AStaleQuestionIsAskedAgainByTheNewPlacement) {
  ExpertCluster shards(model(), halves());
  const auto backend = shards.direct();
  expect_same(rows.run(*backend), want);
  // The shards have moved on; the decoder hears of it a little later.
  auto swapped = halves();
  std::swap(swapped.shards[0], swapped.shards[1]);
  swapped.epoch = 2;
  for (const auto* name : {"expert-shard-0", "expert-shard-1"})
    shards.shard(name).set_table(model().experts.front(), {2, 2});
  auto waiting = std::async(std::launch::async, [&] { return rows.run(*backend, until(10s)); });
  std::this_thread::sleep_for(50ms);
  shards.place(swapped);
  expect_same(waiting.get(), want);
}

TEST_F(MoeFaultTest, ARouterThatDiesIsReplacedByAnotherAndThenByTheDecoderItself) {
  ExpertCluster shards(model(), halves());
  const auto backend = shards.central({"router-0", "router-1"});
  expect_same(rows.run(*backend, until(5s)), want);
  shards.stop_router("router-0");
  expect_same(rows.run(*backend, until(5s)), want);
  const auto asked = shards.router("router-1").counts().batches;
  EXPECT_GT(asked, 0U);
  shards.stop_router("router-1");
  expect_same(rows.run(*backend, until(5s)), want);
  shards.start_router("router-1");
  // It is used again by the first step after its return is noticed.
  for (int i = 0; i < 300 && shards.router("router-1").counts().batches == 0; ++i) {
    expect_same(rows.run(*backend, until(5s)), want);
    std::this_thread::sleep_for(10ms);
  }
  EXPECT_GT(shards.router("router-1").counts().batches, 0U);
}

TEST_F(MoeFaultTest, BehindARouterAMissingShardIsWaitedForToo) {
  ExpertCluster shards(model(), halves());
  const auto backend = shards.central({"router-0"});
  expect_same(rows.run(*backend, until(5s)), want);
  shards.stop_shard("expert-shard-0");
  const auto failed = rows.run(*backend, until(500ms));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, Errc::kExpertUnavailable);
  auto waiting = std::async(std::launch::async, [&] { return rows.run(*backend, until(10s)); });
  std::this_thread::sleep_for(300ms);
  shards.start_shard("expert-shard-0");
  expect_same(waiting.get(), want);
}

TEST_F(MoeFaultTest, AProbeThroughTheRouterFindsAMissingShard) {
  ExpertCluster shards(model(), halves());
  shards.start_router("router-0");
  const auto prober = shards.endpoint("tool", "prober");
  const auto peer = *prober->connect({transport::Address::Scheme::kInProcess, "router-0", {}});
  const auto receive = [&](auto wanted) {
    for (;;) {
      auto event = prober->receive(StepContext::Clock::now() + 5s);
      if (!event || wanted(*event)) return event;
    }
  };
  using Kind = transport::Event::Kind;
  ASSERT_TRUE(receive([](const auto& event) { return event.kind == Kind::kUp; }));
  const auto probe = [&] {
    transport::Frame frame;
    frame.type = FrameType::kProbe;
    frame.sequence = 7;
    EXPECT_TRUE(prober->send(peer, std::move(frame)));
    auto event = receive([](const auto& e) { return e.kind == Kind::kFrame; });
    EXPECT_TRUE(event);
    return std::move(event->frame);
  };
  auto first = probe();
  for (int i = 0; i < 100 && first.type != FrameType::kProbed; ++i) {  // it connects to its shards
    std::this_thread::sleep_for(10ms);
    first = probe();
  }
  EXPECT_EQ(first.type, FrameType::kProbed);
  shards.stop_shard("expert-shard-1");
  const auto failed = probe();
  EXPECT_EQ(failed.type, FrameType::kFailure);
  EXPECT_NE(transport::read_failure(failed).what.find("expert-shard-1"), std::string::npos);
}

TEST_F(MoeFaultTest, TablesGrowAndShrinkWithoutCopies) {
  ModelOptions options;
  options.model = std::string(MOESAIC_SOURCE_DIR) + "/configs/models/ernie-vl-demo";
  const auto opened = open_model(options);
  ASSERT_TRUE(opened) << opened.error().what;
  const auto table = halves();
  auto held = no_experts(*opened);
  EXPECT_EQ(held->bytes(), 0U);
  for (std::uint32_t layer = 1; layer < 6; ++layer) {
    const auto before = held;
    auto grown = add_layer(*opened, held, table, "expert-shard-0", layer);
    ASSERT_TRUE(grown) << grown.error().what;
    held = *grown;
    EXPECT_TRUE(held->holds(layer, Modality::kText, 7));
    EXPECT_FALSE(held->holds(layer, Modality::kText, 8));
    EXPECT_FALSE(before->holds(layer, Modality::kText, 7));
    if (layer > 1) {
      EXPECT_EQ(held->weights().layers[1][0][3].down.data,
                before->weights().layers[1][0][3].down.data);
    }
  }
  const auto other = without_others(*opened, held, table, "expert-shard-1");
  EXPECT_EQ(other->bytes(), 0U);
}

}  // namespace
}  // namespace moesaic
