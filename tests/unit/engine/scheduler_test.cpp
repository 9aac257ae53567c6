#include "common/engine/scheduler.hpp"

#include <gtest/gtest.h>

namespace moesaic {
namespace {

/// Blocks without pages.
class CountingKv final : public KvCache {
 public:
  explicit CountingKv(std::size_t blocks) : blocks_(blocks) {
    for (std::size_t i = 0; i < blocks; ++i) free_.push_back(static_cast<KvBlock>(i));
  }
  std::optional<KvBlock> allocate() override {
    if (free_.empty()) return std::nullopt;
    const auto block = free_.back();
    free_.pop_back();
    return block;
  }
  void release(KvBlock block) override { free_.push_back(block); }
  std::byte* page(KvBlock, std::uint32_t, std::uint32_t) override { return nullptr; }
  const AttentionShape& shape() const override { return shape_; }
  std::size_t total_blocks() const override { return blocks_; }
  std::size_t free_blocks() const override { return free_.size(); }

 private:
  AttentionShape shape_;
  std::size_t blocks_;
  std::vector<KvBlock> free_;
};

std::unique_ptr<Sequence> sequence(std::uint64_t id, std::size_t prompt) {
  auto request = std::make_shared<GenerateRequest>();
  request->id = id;
  request->prompt.assign(prompt, 5);
  request->max_tokens = 1000;
  auto made = std::make_unique<Sequence>();
  made->tokens = request->prompt;
  made->request = std::move(request);
  return made;
}

/// What an engine does with a plan, with every drawn token 7.
void finish_step(const std::vector<Assignment>& plan) {
  for (const auto& a : plan) {
    const bool draws = a.draws();
    a.sequence->computed += a.rows;
    if (draws) a.sequence->tokens.push_back(7);
  }
}

TEST(SchedulerTest, LongPromptsAreCutIntoChunksBesideDecoding) {
  CountingKv kv(100);
  Scheduler scheduler({4, 16, 64, 32});
  scheduler.add(sequence(1, 10));
  auto plan = scheduler.plan(kv);
  ASSERT_EQ(plan.size(), 1U);
  EXPECT_EQ(plan[0].rows, 10U);
  EXPECT_TRUE(plan[0].draws());
  finish_step(plan);
  scheduler.add(sequence(2, 100));
  for (const std::size_t rows : {32U, 32U, 32U, 4U}) {
    plan = scheduler.plan(kv);
    ASSERT_EQ(plan.size(), 2U);
    EXPECT_EQ(plan[0].sequence->request->id, 1U);
    EXPECT_EQ(plan[0].rows, 1U);
    EXPECT_EQ(plan[1].rows, rows);
    EXPECT_EQ(plan[1].draws(), rows == 4U);
    finish_step(plan);
  }
}

TEST(SchedulerTest, StepRowsBoundTheWholeStep) {
  CountingKv kv(100);
  Scheduler scheduler({8, 16, 20, 16});
  for (std::uint64_t id = 1; id <= 3; ++id) scheduler.add(sequence(id, 16));
  std::size_t rows = 0;
  for (const auto& a : scheduler.plan(kv)) rows += a.rows;
  EXPECT_EQ(rows, 20U);
}

TEST(SchedulerTest, WaitsForBlocksAndForASlot) {
  CountingKv kv(4);
  Scheduler scheduler({2, 16, 512, 512});
  scheduler.add(sequence(1, 64));   // one block, and one kept free
  scheduler.add(sequence(2, 129));  // three blocks and one: does not fit beside the first
  EXPECT_EQ(scheduler.plan(kv).size(), 1U);
  EXPECT_EQ(scheduler.running(), 1U);
  EXPECT_EQ(scheduler.waiting(), 1U);
  EXPECT_TRUE(scheduler.remove(1, kv));
  EXPECT_EQ(scheduler.plan(kv).size(), 1U);
  EXPECT_EQ(scheduler.waiting(), 0U);
}

TEST(SchedulerTest, TheYoungestGivesItsBlocksUpAndStartsAgain) {
  CountingKv kv(4);
  Scheduler scheduler({4, 16, 512, 512});
  scheduler.add(sequence(1, 60));
  scheduler.add(sequence(2, 60));
  for (int step = 0; step < 200; ++step) {
    const auto plan = scheduler.plan(kv);
    ASSERT_FALSE(plan.empty());
    EXPECT_EQ(plan[0].sequence->request->id, 1U) << "the oldest never waits";
    for (const auto& a : plan)
      EXPECT_GE(a.sequence->blocks.size(), kv_blocks_for(a.first + a.rows));
    finish_step(plan);
    if (plan[0].sequence->tokens.size() == 64 * 4) break;
  }
  EXPECT_EQ(scheduler.running(), 1U);
  EXPECT_EQ(scheduler.waiting(), 1U);
  const auto second = scheduler.remove(2, kv);
  EXPECT_EQ(second->computed, 0U);
  EXPECT_GT(second->generated(), 0U) << "what it drew is kept";
  EXPECT_TRUE(scheduler.remove(1, kv));
  EXPECT_EQ(kv.free_blocks(), 4U) << "all blocks come back";
}

TEST(SchedulerTest, ListsWhoseDeadlineHasPassed) {
  CountingKv kv(4);
  Scheduler scheduler({1, 16, 512, 512});
  const auto now = std::chrono::steady_clock::now();
  for (std::uint64_t id = 1; id <= 3; ++id) {
    auto made = sequence(id, 4);
    auto request = std::make_shared<GenerateRequest>(*made->request);
    request->deadline = now + std::chrono::seconds(id == 2 ? -1 : 10);
    made->request = request;
    scheduler.add(std::move(made));
  }
  EXPECT_EQ(scheduler.expired(now), std::vector<std::uint64_t>{2});
  EXPECT_EQ(scheduler.ids().size(), 3U);
}

}  // namespace
}  // namespace moesaic
