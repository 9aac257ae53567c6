#include "common/engine/engine.hpp"

#include <gtest/gtest.h>

#include "common/engine/make_engine.hpp"
#include "services/all_in_one/experts.hpp"
#include "tests/support/running_engine.hpp"

// The engine with real weights (the tiny golden model and the demo model): what a request gets
// depends on the request alone.
namespace moesaic {
namespace {

using test::hot;
using test::Ids;
using test::load_demo;
using test::prompt_of;

/// An engine over the experts as the program wires them.
class Running : public test::RunningEngine {
 public:
  Running(const LoadedModel& model, EngineSettings settings, std::size_t routed_shards = 0)
      : Running(model, settings, wire_experts(model, routed_shards > 0)) {}

 private:
  Running(const LoadedModel& model, EngineSettings settings, Result<ExpertWiring> wiring)
      : RunningEngine(model, settings, std::move(wiring->backend)),
        shards_(std::move(wiring->shards)) {}
  std::vector<std::shared_ptr<ShardService>> shards_;
};

EngineSettings settings(std::size_t chunk, std::size_t running = 32) {
  EngineSettings s;
  s.limits.prefill_chunk = chunk;
  s.limits.max_running = running;
  s.kv_bytes = std::size_t{64} << 20;
  return s;
}

constexpr std::uint32_t kTokens = 24;

/// Three different requests alone, one after the other.
std::vector<Ids> alone(const LoadedModel& model) {
  Running run(model, settings(512));
  std::vector<Ids> out;
  for (std::uint64_t i = 0; i < 3; ++i) {
    run.submit(i, prompt_of(40 + 37 * i, static_cast<std::uint32_t>(i)), kTokens, hot(i));
    out.push_back(run.wait(i));
    EXPECT_EQ(out.back().size(), kTokens);
  }
  return out;
}

class EngineDeterminismTest : public testing::TestWithParam<const char*> {};

TEST_P(EngineDeterminismTest, TokensAreTheSameInAnyCompanyAndHoweverTheWorkIsCut) {
  const std::string compute = GetParam();
  const auto one = load_demo(compute, 1);
  const auto want = alone(one);
  const auto two = load_demo(compute, 2);
  for (const std::size_t chunk : {16U, 64U, 512U}) {
    Running run(two, settings(chunk));
    // Eight at once: the three, and neighbours that come and go.
    for (std::uint64_t i = 0; i < 8; ++i)
      run.submit(i, prompt_of(40 + 37 * (i % 3), static_cast<std::uint32_t>(i < 3 ? i : i + 50)),
                 i < 3 ? kTokens : 5 + static_cast<std::uint32_t>(i), hot(i));
    for (std::uint64_t i = 0; i < 3; ++i)
      EXPECT_EQ(run.wait(i), want[i]) << compute << " chunk " << chunk << " request " << i;
  }
  for (const std::size_t shards : {1U, 2U, 4U}) {
    Running run(load_demo(compute, 2, shards), settings(64), shards);
    for (std::uint64_t i = 0; i < 3; ++i)
      run.submit(i, prompt_of(40 + 37 * i, static_cast<std::uint32_t>(i)), kTokens, hot(i));
    for (std::uint64_t i = 0; i < 3; ++i)
      EXPECT_EQ(run.wait(i), want[i]) << compute << " routed:" << shards;
  }
}

TEST_P(EngineDeterminismTest, WhatWasDrawnGivesTheSameContinuationAsAPrompt) {
  const auto model = load_demo(GetParam(), 2);
  Running run(model, settings(512));
  const auto prompt = prompt_of(70, 3);
  run.submit(1, prompt, kTokens);
  const auto whole = run.wait(1);
  for (const std::size_t cut : {1U, 9U, 23U}) {
    auto longer = prompt;
    longer.insert(longer.end(), whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(cut));
    run.submit(10 + cut, longer, static_cast<std::uint32_t>(kTokens - cut));
    EXPECT_EQ(run.wait(10 + cut),
              Ids(whole.begin() + static_cast<std::ptrdiff_t>(cut), whole.end()));
  }
}

TEST_P(EngineDeterminismTest, RunningOutOfKvBlocksChangesNoToken) {
  const auto model = load_demo(GetParam(), 2);
  const auto want = alone(model);
  // Room for one and a half of the sequences: they push one another out.
  auto tight = settings(64);
  tight.max_context = 192;
  const auto shape = DecoderStep::attention_shape(model.config, model.compute);
  tight.kv_bytes = PagedKvCache::block_bytes(shape, model.config.layers) * 4;
  Running run(model, tight);
  for (std::uint64_t i = 0; i < 3; ++i)
    run.submit(i, prompt_of(40 + 37 * i, static_cast<std::uint32_t>(i)), kTokens, hot(i));
  for (std::uint64_t i = 0; i < 3; ++i) EXPECT_EQ(run.wait(i), want[i]);
  EXPECT_EQ(run.engine().status().kv_blocks_free, run.engine().status().kv_blocks_total);
}

INSTANTIATE_TEST_SUITE_P(Compute, EngineDeterminismTest, testing::Values("f32", "bf16"));

class EngineTest : public testing::Test {
 protected:
  static const LoadedModel& model() {
    static const LoadedModel loaded = load_demo("bf16", 2);
    return loaded;
  }
};

TEST_F(EngineTest, EndsAtAStopIdAndAtTheLimit) {
  Running run(model(), settings(512));
  run.submit(1, prompt_of(20, 1), 6);
  const auto ids = run.wait(1);
  EXPECT_EQ(ids.size(), 6U);
  EXPECT_EQ(run.last(1).finished, FinishReason::kLength);
  run.submit(2, prompt_of(20, 1), 6, {}, {ids[2]});
  const auto cut = run.wait(2);
  EXPECT_EQ(run.last(2).finished, FinishReason::kStop);
  EXPECT_EQ(cut.back(), ids[2]) << "the stop id is emitted";
  EXPECT_LE(cut.size(), 3U);
}

TEST_F(EngineTest, CancelEndsARequestAndFreesItsBlocks) {
  Running run(model(), settings(512));
  run.submit(1, prompt_of(300, 1), 700);
  run.engine().cancel(1);
  EXPECT_EQ(run.last(1).finished, FinishReason::kCancelled);
  EXPECT_LT(run.wait(1).size(), 700U);
  run.engine().cancel(12345);  // unknown: nothing happens
  run.submit(2, prompt_of(5, 1), 1);
  EXPECT_EQ(run.wait(2).size(), 1U);
  EXPECT_EQ(run.engine().status().kv_blocks_free, run.engine().status().kv_blocks_total);
}

TEST_F(EngineTest, ADeadlineEndsARequestWhereverItIs) {
  Running run(model(), settings(512));
  auto request = std::make_shared<GenerateRequest>();
  request->id = 1;
  request->prompt = prompt_of(64, 2);
  request->max_tokens = 900;
  request->deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
  ASSERT_TRUE(run.engine().submit(request));
  const auto last = run.last(1);
  EXPECT_EQ(last.finished, FinishReason::kError);
  ASSERT_TRUE(last.error);
  EXPECT_EQ(last.error->code, Errc::kDeadlineExceeded);
}

TEST_F(EngineTest, RefusesAtOnceWhatItCannotDo) {
  auto narrow = settings(512, 1);
  narrow.limits.max_waiting = 2;
  Running run(model(), narrow);
  const auto code = [&](Ids prompt, std::uint32_t max_tokens) {
    auto request = std::make_shared<GenerateRequest>();
    request->id = 99;
    request->prompt = std::move(prompt);
    request->max_tokens = max_tokens;
    const auto queued = run.engine().submit(request);
    return queued ? Errc{} : queued.error().code;
  };
  EXPECT_EQ(code({}, 1), Errc::kInvalidArgument);
  EXPECT_EQ(code({1, 2}, 0), Errc::kInvalidArgument);
  EXPECT_EQ(code(prompt_of(1000, 1), 25), Errc::kContextLength);
  {
    auto request = std::make_shared<GenerateRequest>();
    request->prompt = prompt_of(1000, 1);
    request->max_tokens = 25;
    EXPECT_EQ(run.engine().submit(request).error().what,
              "prompt of 1000 tokens and 25 to generate, the context holds 1024");
  }
  EXPECT_EQ(code({4160}, 1), Errc::kInvalidArgument);
  EXPECT_EQ(code({4096}, 1), Errc::kShapeMismatch) << "a placeholder without an image";
  run.submit(0, prompt_of(8, 1), 1000);
  while (run.engine().status().running == 0) std::this_thread::yield();
  for (std::uint64_t i = 1; i < 3; ++i) run.submit(i, prompt_of(8, 1), 1000);
  EXPECT_EQ(code({5}, 1), Errc::kOverloaded);
}

TEST_F(EngineTest, DrainRefusesNewRequestsAndTellsWhenTheLastHasEnded) {
  Running run(model(), settings(512));
  run.submit(1, prompt_of(30, 1), 40);
  std::mutex mutex;
  std::condition_variable changed;
  bool drained = false;
  run.engine().drain([&] {
    const std::lock_guard lock(mutex);
    drained = true;
    changed.notify_all();
  });
  auto request = std::make_shared<GenerateRequest>();
  request->id = 2;
  request->prompt = {5};
  request->max_tokens = 1;
  const auto refused = run.engine().submit(request);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kUnavailable);
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return drained; });
  EXPECT_EQ(run.wait(1).size(), 40U) << "the open request was finished first";
}

TEST_F(EngineTest, DestructionEndsOpenRequestsWithAnError) {
  TokenEvent last;
  {
    auto wiring = wire_experts(model(), false);
    auto s = settings(512);
    s.max_context = 1024;
    auto engine =
        make_engine(model(), s, std::move(wiring->backend), [&](const TokenEvents& events) {
          for (const auto& event : events)
            if (event.finished) last = event;
        });
    ASSERT_TRUE(engine);
    auto request = std::make_shared<GenerateRequest>();
    request->id = 1;
    request->prompt = prompt_of(30, 1);
    request->max_tokens = 900;
    ASSERT_TRUE((*engine)->submit(request));
  }
  EXPECT_EQ(last.finished, FinishReason::kError);
  ASSERT_TRUE(last.error);
  EXPECT_EQ(last.error->code, Errc::kUnavailable);
}

}  // namespace
}  // namespace moesaic
