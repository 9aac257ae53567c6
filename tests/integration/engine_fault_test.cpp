#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "common/engine/local_experts.hpp"
#include "tests/support/expert_cluster.hpp"
#include "tests/support/running_engine.hpp"

// Whole requests over shards that die, return, move, and over decoders that die: the tokens are
// those of an undisturbed run, and what cannot be served ends in time.
namespace moesaic {
namespace {

using namespace std::chrono_literals;
using cluster::ShardSet;
using test::ExpertCluster;
using test::hot;
using test::Ids;
using test::prompt_of;
using test::RunningEngine;
using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kTokens = 24;

const LoadedModel& model() {
  static const auto loaded = test::load_demo("bf16", 1);
  return loaded;
}

std::unique_ptr<ExpertBackend> local() {
  return std::make_unique<LocalExperts>(model().config, model().gates, model().experts.front(),
                                        *model().pool);
}

GenerateRequest request(std::uint64_t id, std::uint32_t max_tokens = kTokens) {
  GenerateRequest made;
  made.id = id;
  made.prompt = prompt_of(20 + 7 * id, static_cast<std::uint32_t>(id));
  made.max_tokens = max_tokens;
  if (id % 2 == 1) made.sampling = hot(id);
  return made;
}

/// What requests 0, 1, .. get when nothing happens.
const std::vector<Ids>& undisturbed() {
  static const auto all = [] {
    RunningEngine run(model(), {}, local());
    std::vector<Ids> ids;
    for (std::uint64_t i = 0; i < 10; ++i) run.submit(request(i));
    for (std::uint64_t i = 0; i < 10; ++i) ids.push_back(run.wait(i));
    return ids;
  }();
  return all;
}

/// An image near the beginning, with made-up features.
void add_image(GenerateRequest& made) {
  const auto& config = model().config;
  auto features = std::make_shared<VisualFeatures>();
  features->grid = {1, 4, 6};
  features->rows = visual_rows(config.vision, features->grid);
  features->hidden = config.hidden;
  for (std::size_t i = 0; i < features->rows * features->hidden; ++i)
    features->values.push_back(static_cast<float>((i * 37) % 64) / 64.0F - 0.5F);
  Ids ids{config.image_start_id};
  ids.insert(ids.end(), features->rows, config.image_placeholder_id);
  ids.push_back(config.image_end_id);
  made.prompt.insert(made.prompt.begin() + 3, ids.begin(), ids.end());
  made.visuals.push_back(std::move(features));
}

TEST(EngineReplayTest, ContinuesAnywhereAsIfNothingHadHappened) {
  RunningEngine run(model(), {}, local());
  std::uint64_t id = 100;
  for (const bool image : {false, true})
    for (const bool sampled : {false, true}) {
      auto first = request(3);
      first.id = ++id;
      first.sampling = sampled ? hot(9) : SamplingParams{};
      if (image) add_image(first);
      run.submit(first);
      const auto whole = run.wait(id);
      ASSERT_EQ(whole.size(), kTokens);
      for (std::size_t cut = 0; cut < kTokens; ++cut) {
        auto again = first;
        again.id = ++id;
        again.generated.assign(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(cut));
        run.submit(again);
        EXPECT_EQ(run.wait(id), Ids(whole.begin() + static_cast<std::ptrdiff_t>(cut), whole.end()))
            << "cut at " << cut << (image ? " with image" : "") << (sampled ? " sampled" : "");
      }
    }
}

TEST(EngineReplayTest, WhatIsCompleteAlreadyEndsAtOnce) {
  RunningEngine run(model(), {}, local());
  auto full = request(1);
  full.generated.assign(kTokens, 400);
  run.submit(full);
  EXPECT_EQ(run.last(1).finished, FinishReason::kLength);
  auto stopped = request(2);
  stopped.generated = {400, 7};
  stopped.stop_ids = {7};
  run.submit(stopped);
  EXPECT_EQ(run.last(2).finished, FinishReason::kStop);
  EXPECT_TRUE(run.wait(1).empty() && run.wait(2).empty());
  EXPECT_EQ(run.engine().status().kv_blocks_free, run.engine().status().kv_blocks_total);
}

TEST(EngineReplayTest, RefusesTokensThatDoNotExist) {
  RunningEngine run(model(), {}, local());
  auto wrong = request(1);
  wrong.generated = {static_cast<std::int32_t>(model().config.vocab_size)};
  const auto queued =
      run.engine().submit(std::make_shared<const GenerateRequest>(std::move(wrong)));
  ASSERT_FALSE(queued);
  EXPECT_EQ(queued.error().code, Errc::kInvalidArgument);
}

cluster::PlacementTable replicas() {
  return test::placement_by(model().config, 2, [](auto, auto, auto) { return ShardSet{3}; });
}
cluster::PlacementTable halves() { return shard_placement(model().config, model().compute, 2); }

void expect_undisturbed(RunningEngine& run) {
  for (std::uint64_t i = 0; i < 10; ++i) EXPECT_EQ(run.wait(i), undisturbed()[i]) << i;
}

TEST(EngineFaultTest, HalvesOfAStepGiveTheSameTokens) {
  for (const MicroBatching micro : {MicroBatching{0, 0}, {2, 0}, {0, 2}, {16, 3}}) {
    for (const bool central : {false, true}) {
      ExpertCluster shards(model(), halves());
      EngineSettings settings;
      settings.micro = micro;
      settings.limits.prefill_chunk = 48;
      RunningEngine run(model(), settings,
                        central ? shards.central({"router-0"}) : shards.direct());
      for (std::uint64_t i = 0; i < 10; ++i) run.submit(request(i));
      expect_undisturbed(run);
    }
  }
}

TEST(EngineFaultTest, AReplicaTakesOverAndNoTokenChanges) {
  for (const bool central : {false, true}) {
    ExpertCluster shards(model(), replicas());
    RunningEngine run(model(), {}, central ? shards.central({"router-0"}) : shards.direct());
    for (std::uint64_t i = 0; i < 10; ++i) run.submit(request(i));
    run.wait_for_tokens(0, 5);
    shards.stop_shard("expert-shard-0");
    run.wait_for_tokens(0, 12);
    shards.start_shard("expert-shard-0");
    expect_undisturbed(run);
  }
}

TEST(EngineFaultTest, WithoutAReplicaRequestsWaitForTheShardToReturn) {
  for (const bool central : {false, true}) {
    ExpertCluster shards(model(), halves());
    RunningEngine run(model(), {}, central ? shards.central({"router-0"}) : shards.direct());
    for (std::uint64_t i = 0; i < 10; ++i) run.submit(request(i));
    run.wait_for_tokens(0, 3);
    shards.stop_shard("expert-shard-1");
    std::this_thread::sleep_for(300ms);
    shards.start_shard("expert-shard-1");
    expect_undisturbed(run);
  }
}

TEST(EngineFaultTest, WhoseTimeIsOverEndsAndTheOthersGoOn) {
  for (const bool central : {false, true}) {
    ExpertCluster shards(model(), halves());
    EngineSettings narrow;
    narrow.limits.max_running = 10;
    RunningEngine run(model(), narrow, central ? shards.central({"router-0"}) : shards.direct());
    for (std::uint64_t i = 0; i < 10; ++i) run.submit(request(i));
    run.wait_for_tokens(0, 3);
    shards.stop_shard("expert-shard-1");
    std::this_thread::sleep_for(100ms);
    // One more that cannot even begin.
    auto late = request(20, 500);
    late.deadline = Clock::now() + 300ms;
    run.submit(late);
    const auto last = run.last(20);
    EXPECT_GE(Clock::now(), late.deadline);
    EXPECT_LT(Clock::now(), late.deadline + 1s);
    EXPECT_EQ(last.finished, FinishReason::kError);
    ASSERT_TRUE(last.error);
    EXPECT_EQ(last.error->code, Errc::kExpertUnavailable) << last.error->what;
    EXPECT_NE(last.error->what.find("expert-shard-1"), std::string::npos) << last.error->what;
    shards.start_shard("expert-shard-1");
    expect_undisturbed(run);
  }
}

TEST(EngineFaultTest, ACancelIsHeardWhileAShardIsMissing) {
  ExpertCluster shards(model(), halves());
  RunningEngine run(model(), {}, shards.direct());
  run.submit(request(0));
  run.wait_for_tokens(0, 2);
  shards.stop_shard("expert-shard-0");
  std::this_thread::sleep_for(50ms);
  const auto begun = Clock::now();
  run.engine().cancel(0);
  EXPECT_EQ(run.last(0).finished, FinishReason::kCancelled);
  EXPECT_LT(Clock::now() - begun, 1s);
}

TEST(EngineFaultTest, AnEngineEndsWhileAShardIsMissing) {
  ExpertCluster shards(model(), halves());
  shards.stop_shard("expert-shard-0");
  RunningEngine run(model(), {}, shards.direct());
  run.submit(request(0));
  std::this_thread::sleep_for(50ms);
}

TEST(EngineFaultTest, RoutersComeAndGoAndNoTokenChanges) {
  ExpertCluster shards(model(), halves());
  RunningEngine run(model(), {}, shards.central({"router-0", "router-1"}));
  for (std::uint64_t i = 0; i < 10; ++i) run.submit(request(i));
  run.wait_for_tokens(0, 3);
  shards.stop_router("router-0");
  run.wait_for_tokens(0, 8);
  shards.stop_router("router-1");
  run.wait_for_tokens(0, 14);
  shards.start_router("router-0");
  expect_undisturbed(run);
}

TEST(EngineFaultTest, ExpertsMoveUnderLoadAndNoTokenChanges) {
  ExpertCluster shards(model(), halves());
  RunningEngine run(model(), {}, shards.direct());
  for (std::uint64_t i = 0; i < 10; ++i) run.submit(request(i, 400));
  run.wait_for_tokens(0, 3);
  for (std::uint32_t epoch = 2; epoch < 12; ++epoch) {
    // Load what is new, adopt, release what is old.
    const auto before = shards.placement();
    auto after = test::placement_by(model().config, 2, [&](auto layer, auto, auto e) {
      return ShardSet{1} << (e + layer + epoch) % 2;
    });
    after.epoch = epoch;
    for (const auto& name : before.shards) {
      auto both = before;
      for (std::size_t i = 0; i < both.owners.size(); ++i) both.owners[i] |= after.owners[i];
      shards.shard(name).set_table(shards.table_of(name, both), {epoch - 1, epoch});
    }
    shards.place(after);
    const auto version = shards.source->latest()->version;
    const auto begun = Clock::now();
    while (shards.source->reach().adopted < version && Clock::now() < begun + 5s)
      std::this_thread::sleep_for(1ms);
    ASSERT_EQ(shards.source->reach().adopted, version);
    for (const auto& name : after.shards)
      shards.shard(name).set_table(shards.table_of(name, after), {epoch, epoch});
  }
  for (std::uint64_t i = 0; i < 10; ++i) {
    auto ids = run.wait(i);
    EXPECT_EQ(ids.size(), 400U) << i;
    ids.resize(kTokens);
    EXPECT_EQ(ids, undisturbed()[i]) << i;
    for (const auto& name : shards.placement().shards)
      EXPECT_EQ(shards.shard(name).counts().failed, 0U);
  }
}

}  // namespace
}  // namespace moesaic
