#include "services/all_in_one/eval/divergence.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "services/all_in_one/eval/row_store.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

const float kLn3 = std::log(3.0F);

std::vector<double> log_p(std::vector<float> logits) {
  std::vector<double> out;
  log_softmax(logits, out);
  return out;
}

TEST(PerplexityTest, IsTheExponentOfTheMeanSurprise) {
  Perplexity perplexity;
  EXPECT_EQ(perplexity.value(), 1);
  perplexity.add(log_p({kLn3, 0}), 0);  // p = 3/4
  perplexity.add(log_p({kLn3, 0}), 1);  // p = 1/4
  EXPECT_NEAR(perplexity.value(), std::sqrt(16.0 / 3.0), 1e-7);
  Perplexity even;
  for (const std::int32_t token : {0, 3, 2}) even.add(log_p({5, 5, 5, 5}), token);
  EXPECT_NEAR(even.value(), 4, 1e-12);
  even.add(perplexity);
  EXPECT_EQ(even.tokens, 5U);
  EXPECT_NEAR(even.nll, 3 * std::log(4.0) + std::log(16.0 / 3.0), 1e-6);
}

TEST(PerplexityTest, LargeLogitsDoNotOverflow) {
  const auto p = log_p({3000, 2999, -3000});
  EXPECT_NEAR(p[0], -std::log1p(std::exp(-1.0)), 1e-12);
  EXPECT_NEAR(p[2], -6000 - std::log1p(std::exp(-1.0)), 1e-9);
}

TEST(DivergenceTest, MatchesTheSumByHand) {
  Divergence divergence;
  divergence.add(log_p({0, 0}), log_p({kLn3, 0}));  // (1/2, 1/2) against (3/4, 1/4)
  EXPECT_NEAR(divergence.mean(), 0.5 * std::log(4.0 / 3.0), 1e-7);
  EXPECT_EQ(divergence.agreement(), 1);  // of equals the first
  divergence.add(log_p({0, kLn3}), log_p({kLn3, 0}));
  EXPECT_NEAR(divergence.max, 0.5 * std::log(3.0), 1e-7);
  EXPECT_NEAR(divergence.kl, 0.5 * std::log(4.0), 1e-7);
  EXPECT_EQ(divergence.agreement(), 0.5);
}

TEST(DivergenceTest, OfEqualDistributionsIsExactlyZero) {
  Divergence divergence;
  divergence.add(log_p({0.1F, -7, 3.3F}), log_p({0.1F, -7, 3.3F}));
  EXPECT_EQ(divergence.kl, 0);
  EXPECT_EQ(divergence.agreement(), 1);
}

TEST(RowStoreTest, GivesBackTheRowsAndLeavesNoFile) {
  const test::TempDir dir;
  auto store = RowStore::create(dir.path(), 3);
  ASSERT_TRUE(store) << store.error().what;
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  for (float i = 0; i < 100; ++i) ASSERT_TRUE(store->append(std::vector<float>{i, -i, i * 0.1F}));
  const auto moved = std::move(*store);
  std::vector<float> row(3);
  ASSERT_TRUE(moved.read(42, row));
  EXPECT_EQ(row, (std::vector<float>{42, -42, 42 * 0.1F}));
  EXPECT_EQ(moved.read(100, row).error().code, Errc::kNotFound);
}

TEST(RowStoreTest, BadRowsAndFoldersAreErrors) {
  const test::TempDir dir;
  auto store = RowStore::create(dir.path(), 3);
  ASSERT_TRUE(store);
  EXPECT_EQ(store->append(std::vector<float>{1, 2}).error().code, Errc::kShapeMismatch);
  EXPECT_EQ(RowStore::create(dir / "none", 3).error().code, Errc::kIo);
}

}  // namespace
}  // namespace moesaic
