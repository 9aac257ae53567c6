#include "common/sampling/sampler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "common/kernels/elementwise.hpp"
#include "common/kernels/norm.hpp"

namespace moesaic {
namespace {

TEST(SamplerTest, GreedyTakesTheLargestLogitAndTheLowestIdOfEquals) {
  Sampler sampler;
  const std::vector<float> logits{1, 3, -2, 3, 0};
  EXPECT_EQ(sampler.draw(logits, {}, 0), 1);
  EXPECT_EQ(sampler.draw(std::vector<float>{-5}, {}, 9), 0);
}

TEST(SamplerTest, UniformNumbersFollowTheFormula) {
  // splitmix64(x) of the published generator: the first output for state 0 is 0xE220A8397B1DCDAF.
  // u = (z >> 40) * 2^-24 with z = sm(sm(sm(seed) + choice) + position); computed once with
  // arbitrary-precision integers.
  EXPECT_EQ(draw_uniform(0, 0, 0), 2327157 * 0x1p-24F);
  EXPECT_EQ(draw_uniform(42, 1, 17), 10379207 * 0x1p-24F);
  EXPECT_EQ(draw_uniform(~0ULL, 7, 131071), 216697 * 0x1p-24F);
}

TEST(SamplerTest, SeedChoiceAndPositionEachMatterAndARetryDrawsTheSame) {
  const float base = draw_uniform(7, 0, 100);
  EXPECT_EQ(base, draw_uniform(7, 0, 100));
  EXPECT_NE(base, draw_uniform(8, 0, 100));
  EXPECT_NE(base, draw_uniform(7, 1, 100));
  EXPECT_NE(base, draw_uniform(7, 0, 101));
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const float u = draw_uniform(3, 0, i);
    EXPECT_GE(u, 0.0F);
    EXPECT_LT(u, 1.0F);
  }
}

TEST(SamplerTest, FrequenciesFollowTheSoftmax) {
  Sampler sampler;
  const std::vector<float> logits{0.0F, 0.6931472F, 1.3862944F};  // odds 1 : 2 : 4
  SamplingParams params;
  params.temperature = 1;
  std::map<int, int> count;
  constexpr int kDraws = 70000;
  for (int i = 0; i < kDraws; ++i)
    ++count[*sampler.draw(logits, params, static_cast<std::uint64_t>(i))];
  EXPECT_NEAR(count[0], kDraws / 7, 400);  // 4 standard deviations
  EXPECT_NEAR(count[1], kDraws * 2 / 7, 480);
  EXPECT_NEAR(count[2], kDraws * 4 / 7, 530);
  params.temperature = 0.5F;  // odds 1 : 4 : 16
  count.clear();
  for (int i = 0; i < kDraws; ++i)
    ++count[*sampler.draw(logits, params, static_cast<std::uint64_t>(i))];
  EXPECT_NEAR(count[0], kDraws / 21, 240);
}

TEST(SamplerTest, FiltersKeepTheBestAndNeverAll) {
  Sampler sampler;
  const std::vector<float> logits{0.0F, 5.0F, 4.0F, 4.5F, -3.0F};
  struct Case {
    SamplingParams params;
    std::vector<int> allowed;
  };
  const Case cases[] = {
      {{1, 1, 2, 0, 0, 0}, {1, 3}},
      {{1, 1, 1, 0, 0, 0}, {1}},
      {{1, 1e-6F, 0, 0, 0, 0}, {1}},
      {{1, 0.6F, 0, 0, 0, 0}, {1, 3}},  // p = .502, .304, .185, ...
      {{1, 1, 0, 0.5F, 0, 0}, {1, 3}},  // relative to the best: 1, .61, .37
      {{1, 0.99F, 3, 0.1F, 0, 0}, {1, 2, 3}},
      {{1e-6F, 1, 0, 0, 0, 0}, {1}},
  };
  for (auto c : cases) {
    std::map<int, int> seen;
    for (int i = 0; i < 3000; ++i) {
      c.params.seed = static_cast<std::uint64_t>(i);
      ++seen[*sampler.draw(logits, c.params, 0)];
    }
    std::vector<int> ids;
    for (const auto& [id, n] : seen) ids.push_back(id);
    EXPECT_EQ(ids, c.allowed);
  }
}

/// The same filters by sorting everything.
std::vector<float> sorted_and_cut(std::vector<float> p, std::size_t top_k, float top_p) {
  std::vector<std::uint32_t> order(p.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a] > p[b]; });
  const float wanted = top_p * stripe64_dot(p.data(), nullptr, p.size());
  float sum = 0;
  std::size_t taken = 0;
  while (taken < std::min(top_k, p.size()) && (taken == 0 || sum < wanted))
    sum += p[order[taken++]];
  for (std::size_t i = taken; i < p.size(); ++i) p[order[i]] = 0;
  return p;
}

TEST(SamplerTest, FiltersOfALargeVocabularyAreThoseOfACompleteSort) {
  constexpr std::size_t kIds = 20000;
  Sampler sampler;
  std::vector<float> logits(kIds), p(kIds);
  for (std::size_t i = 0; i < kIds; ++i)
    logits[i] = static_cast<float>(i * 2654435761U % 997) * 0.004F;  // many equals
  const float most = *std::max_element(logits.begin(), logits.end());
  for (std::size_t i = 0; i < kIds; ++i) p[i] = exp_portable(logits[i] - most);
  for (const float top_p : {0.001F, 0.3F, 0.95F, 0.9999F}) {
    const auto kept = sorted_and_cut(p, kIds, top_p);
    SamplingParams params;
    params.temperature = 1;
    params.top_p = top_p;
    for (std::uint64_t position = 0; position < 200; ++position) {
      const float target = draw_uniform(0, 0, position) * stripe64_dot(kept.data(), nullptr, kIds);
      float sum = 0;
      std::size_t want = 0;
      for (std::size_t i = 0; i < kIds && sum <= target; ++i)
        if (kept[i] > 0) sum += kept[want = i];
      ASSERT_EQ(*sampler.draw(logits, params, position), static_cast<std::int32_t>(want)) << top_p;
    }
  }
}

TEST(SamplerTest, LogitsThatAreNotFiniteGiveNoToken) {
  Sampler sampler;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(sampler.draw(std::vector<float>(5, nan), {}, 0));
  EXPECT_FALSE(sampler.draw(std::vector<float>{0, std::numeric_limits<float>::infinity()}, {}, 0));
}

}  // namespace
}  // namespace moesaic
