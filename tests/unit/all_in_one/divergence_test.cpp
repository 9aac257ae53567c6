#include "services/all_in_one/eval/divergence.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <span>
#include <vector>

#include "services/all_in_one/eval/scratch_file.hpp"
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

TEST(ScratchFileTest, GivesBackWhatWasWrittenAndLeavesNoFile) {
  const test::TempDir dir;
  auto file = ScratchFile::create(dir.path());
  ASSERT_TRUE(file) << file.error().what;
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  for (float i = 0; i < 100; ++i) {
    const std::array row{i, -i, i * 0.1F};
    const auto offset = file->append(std::as_bytes(std::span(row)));
    ASSERT_TRUE(offset) << offset.error().what;
    EXPECT_EQ(*offset, static_cast<std::uint64_t>(i) * sizeof(row));
  }
  const auto moved = std::move(*file);
  std::array<float, 3> row{};
  ASSERT_TRUE(moved.read(42 * sizeof(row), std::as_writable_bytes(std::span(row))));
  EXPECT_EQ(row, (std::array{42.0F, -42.0F, 42 * 0.1F}));
  EXPECT_EQ(moved.read(1196, std::as_writable_bytes(std::span(row))).error().code, Errc::kNotFound);
  EXPECT_EQ(ScratchFile::create(dir / "none").error().code, Errc::kIo);
}

}  // namespace
}  // namespace moesaic
