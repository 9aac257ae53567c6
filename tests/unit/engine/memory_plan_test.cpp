#include "common/engine/memory_plan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/engine/step.hpp"

namespace moesaic {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

ModelConfig published() {
  return *load_model_config(std::string(MOESAIC_SOURCE_DIR) +
                            "/configs/models/ernie-4.5-vl-28b-a3b.json");
}

TEST(MemoryPlanTest, TheCacheTakesWhatIsLeftAndNoMore) {
  const auto config = published();
  const MemorySettings settings{.kv_type = Compute::kInt, .beside_bytes = kGiB / 2};
  const auto plan = plan_memory(config, settings, 16 * kGiB, 23 * kGiB);
  EXPECT_EQ(plan.fixed(),
            16 * kGiB + kGiB / 2 + kMemoryReserve + step_scratch_bytes(config, settings.limits));
  EXPECT_LE(plan.needed(), plan.available);
  EXPECT_LT(plan.available - plan.needed(), plan.kv_block_bytes);
  EXPECT_TRUE(plan.one_context_fits());
  EXPECT_TRUE(check_plan(plan, settings));
  EXPECT_EQ(plan.longest_context(), plan.kv_blocks * kPageTokens);
}

TEST(MemoryPlanTest, NoMoreThanAllSequencesCanUse) {
  const MemorySettings settings{
      .kv_type = Compute::kInt, .max_context = 1000, .limits = {.max_running = 3}};
  const auto plan = plan_memory(published(), settings, kGiB, 100 * kGiB);
  EXPECT_EQ(plan.kv_blocks, 3 * kv_blocks_for(1000));
}

TEST(MemoryPlanTest, BytesThatWereGivenAreKeptTo) {
  const auto config = published();
  MemorySettings settings{.kv_type = Compute::kBf16, .kv_bytes = kGiB, .max_context = 4096};
  const auto plan = plan_memory(config, settings, kGiB, 100 * kGiB);
  // 28 layers, 4 heads, keys and values of 128 in two bytes: 56 KiB a token.
  EXPECT_EQ(plan.kv_block_bytes, 28U * 4 * 2 * 128 * 2 * kPageTokens);
  EXPECT_EQ(plan.kv_blocks, kGiB / plan.kv_block_bytes);
}

TEST(MemoryPlanTest, LessThanOneContextIsRefusedWithTheNumbers) {
  const auto config = published();
  MemorySettings settings{.kv_type = Compute::kInt};
  auto bad = check_plan(plan_memory(config, settings, 16 * kGiB, 19 * kGiB), settings);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, Errc::kOverloaded);
  EXPECT_THAT(bad.error().what, HasSubstr("one context of 131072 tokens needs 3"));
  EXPECT_THAT(bad.error().what, HasSubstr("19456 MiB of memory leave beside 16384 MiB of weights"));
  EXPECT_THAT(bad.error().what, HasSubstr("lower engine.max_context"));
  // Not even the weights, or they and a cache that was asked for.
  bad = check_plan(plan_memory(config, settings, 20 * kGiB, 19 * kGiB), settings);
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().what, HasSubstr("20480 MiB of weights and a KV cache of 0 MiB need more "
                                          "than the 19456 MiB of memory"));
  settings.kv_bytes = 8 * kGiB;
  bad = check_plan(plan_memory(config, settings, 16 * kGiB, 19 * kGiB), settings);
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().what, HasSubstr("; lower kv.bytes"));
  settings.kv_bytes = kGiB;
  bad = check_plan(plan_memory(config, settings, kGiB, 100 * kGiB), settings);
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().what, HasSubstr("in the 1024 MiB of kv.bytes; raise it"));
  settings.max_context = 8192;
  EXPECT_TRUE(check_plan(plan_memory(config, settings, kGiB, 100 * kGiB), settings));
}

TEST(MemoryPlanTest, BuffersOfStepsStayBelowOneGigabyte) {
  const auto config = published();
  EXPECT_LT(step_scratch_bytes(config, {}), kGiB);
  EXPECT_GT(step_scratch_bytes(config, {.step_rows = 2048}), step_scratch_bytes(config, {}));
  // A picture of 1000 x 1000 has 72 x 72 patches.
  EXPECT_LT(vision_scratch_bytes(config, 72 * 72), kGiB / 2);
}

}  // namespace
}  // namespace moesaic
