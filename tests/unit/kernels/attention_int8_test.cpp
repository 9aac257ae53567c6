#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "common/kernels/attention.hpp"
#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/page_probe.hpp"
#include "tests/unit/kernels/attention_fixture.hpp"

namespace moesaic {
namespace {

using test::AttentionCase;
using test::gaussian;
using test::isa_case;
using test::same_bits;
using test::Sequence;
using test::shape_of;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

/// Root of the mean square of the differences, as a share of that of `want`.
double error_of(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0, power = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double d = double{got[i]} - want[i];
    error += d * d;
    power += double{want[i]} * want[i];
  }
  return std::sqrt(error / power);
}

std::vector<float> rows_of(const std::vector<float>& all, std::size_t width, std::size_t first,
                           std::size_t rows) {
  const auto from = all.begin() + static_cast<std::ptrdiff_t>(first * width);
  return {from, from + static_cast<std::ptrdiff_t>(rows * width)};
}

const AttentionCase kCases[] = {
    {Compute::kInt, 5, 1, 128, 130}, {Compute::kInt, 4, 2, 32, 70},  {Compute::kInt, 3, 3, 40, 65},
    {Compute::kInt, 8, 1, 80, 97},   {Compute::kInt, 2, 1, 64, 1},   {Compute::kInt, 7, 1, 112, 63},
    {Compute::kInt, 1, 1, 8, 64},    {Compute::kInt, 6, 2, 192, 90},
};

class AttentionInt8Test : public testing::TestWithParam<Isa> {};

TEST_P(AttentionInt8Test, GivesTheBitsOfTheScalarLevel) {
  for (const auto& c : kCases) {
    const Sequence s(shape_of(c.kv, c.heads, c.kv_heads, c.head_dim), c.tokens, 1);
    EXPECT_TRUE(same_bits(s.run(GetParam(), 0, c.tokens), s.run(Isa::kScalar, 0, c.tokens)))
        << "head_dim " << c.head_dim;
  }
}

TEST_P(AttentionInt8Test, GivesTheBitsOfTheScalarLevelAroundPagesAndSegments) {
  for (const std::size_t head_dim : {32UL, 40UL, 64UL, 80UL, 128UL})
    for (const std::size_t tokens : {63UL, 64UL, 65UL, 1023UL, 1025UL})
      for (const std::size_t rows : {1UL, 5UL, 12UL, 33UL, 63UL}) {
        const Sequence s(shape_of(Compute::kInt, 3, 1, head_dim), tokens, 3);
        EXPECT_TRUE(same_bits(s.run(GetParam(), tokens - rows, rows),
                              s.run(Isa::kScalar, tokens - rows, rows)))
            << rows << " rows of " << tokens << ", head_dim " << head_dim;
      }
}

TEST_P(AttentionInt8Test, GivesTheBitsOfTheScalarLevelAtExtremeMagnitudes) {
  for (const float scale : {0.0F, 1e-42F, 1e-38F, 1e-20F, 1e-3F, 30.0F, 1e15F, 1e30F}) {
    Sequence s(shape_of(Compute::kInt, 2, 1, 40), 90, 4);
    for (std::size_t t = 0; t < s.tokens; ++t) {
      std::vector<float> k(40), v(40);
      for (std::size_t d = 0; d < 40; ++d) {
        k[d] = s.k[t * 40 + d] * (t % 3 == 0 ? scale : 1);
        v[d] = s.v[t * 40 + d] * (t % 2 == 0 ? scale : 1);
      }
      s.replace(t, 0, k.data(), v.data());
    }
    const auto got = s.run(GetParam(), 0, 90);
    EXPECT_TRUE(same_bits(got, s.run(Isa::kScalar, 0, 90))) << scale;
    for (const float y : got) ASSERT_TRUE(std::isfinite(y)) << scale;
  }
}

TEST_P(AttentionInt8Test, IsNearTheReference) {
  for (const auto& c : kCases) {
    const Sequence s(shape_of(c.kv, c.heads, c.kv_heads, c.head_dim), c.tokens, 5);
    std::vector<float> want;
    attention_ref(s.shape, s.task(0, c.tokens, want));
    // The reference reads the same pages; beside it stand the steps of q (max |q| / 127, scores of
    // standard deviation 2) and of the weights (a 255th of the largest of the page).
    EXPECT_LT(error_of(s.run(GetParam(), 0, c.tokens), want), 0.02) << "head_dim " << c.head_dim;
  }
}

TEST_P(AttentionInt8Test, ThreeSegmentsAreNearTheReference) {
  const Sequence s(shape_of(Compute::kInt, 2, 1, 32), 2100, 17);
  std::vector<float> want;
  attention_ref(s.shape, s.task(2060, 40, want));
  EXPECT_LT(error_of(s.run(GetParam(), 2060, 40), want), 0.02);
}

TEST_P(AttentionInt8Test, ADecodeRowIsAPrefillRowHoweverTheRowsAreChunked) {
  for (const auto& [heads, dim, tokens] :
       {std::tuple{5UL, 40UL, 200UL}, std::tuple{2UL, 32UL, 1100UL}, std::tuple{5UL, 128UL, 150UL},
        std::tuple{4UL, 80UL, 130UL}, std::tuple{1UL, 64UL, 300UL}}) {
    const Sequence s(shape_of(Compute::kInt, heads, 1, dim), tokens, 6);
    const auto all = s.run(GetParam(), 0, tokens);
    for (const std::size_t chunk : {1UL, 7UL, 64UL, 129UL})
      for (std::size_t first = 0; first < tokens; first += chunk) {
        const std::size_t rows = std::min(chunk, tokens - first);
        ASSERT_TRUE(same_bits(s.run(GetParam(), first, rows), rows_of(all, s.width(), first, rows)))
            << "chunks of " << chunk << ", row " << first;
      }
  }
}

TEST_P(AttentionInt8Test, WhatLiesBeyondARowIsNotSeen) {
  // Pages are 0xff where no token stands: keys and values of -1 and 127, scales NaN.
  for (const std::size_t tokens : {1UL, 15UL, 16UL, 31UL, 63UL, 64UL, 90UL}) {
    const auto shape = shape_of(Compute::kInt, 3, 1, 48);
    const Sequence longer(shape, tokens + 60, 8);
    Sequence exact(shape, tokens, 8);
    for (std::size_t t = 0; t < tokens; ++t)
      exact.replace(t, 0, longer.k.data() + t * 48, longer.v.data() + t * 48);
    exact.q = rows_of(longer.q, exact.width(), 0, tokens);
    const auto got = exact.run(GetParam(), tokens - 1, 1);
    EXPECT_TRUE(same_bits(got, longer.run(GetParam(), tokens - 1, 1))) << tokens;
    for (const float y : got) ASSERT_TRUE(std::isfinite(y)) << tokens;
  }
}

TEST_P(AttentionInt8Test, AKeyOrValueThatIsNotFiniteMakesTheRowsThatSeeItNan) {
  constexpr std::size_t kDim = 32, kTokens = 150, kBad = 100;
  for (const float bad : {kNan, -kNan, kInf, -kInf})
    for (const bool value : {false, true}) {
      Sequence s(shape_of(Compute::kInt, 3, 1, kDim), kTokens, 9);
      const auto clean = s.run(GetParam(), 0, kTokens);
      std::vector<float> k = rows_of(s.k, kDim, kBad, 1), v = rows_of(s.v, kDim, kBad, 1);
      (value ? v : k)[5] = bad;
      s.replace(kBad, 0, k.data(), v.data());
      const auto got = s.run(GetParam(), 0, kTokens);
      EXPECT_TRUE(same_bits(rows_of(got, s.width(), 0, kBad), rows_of(clean, s.width(), 0, kBad)));
      for (std::size_t i = kBad * s.width(); i < got.size(); ++i)
        ASSERT_TRUE(std::isnan(got[i])) << bad << (value ? " value" : " key") << " at " << i;
    }
}

TEST_P(AttentionInt8Test, AQueryThatIsNotFiniteMakesItsHeadNan) {
  constexpr std::size_t kDim = 40, kTokens = 1030;
  for (const std::size_t rows : {3UL, 31UL}) {
    Sequence s(shape_of(Compute::kInt, 2, 1, kDim), kTokens, 10);
    const auto clean = s.run(GetParam(), kTokens - rows, rows);
    const std::size_t bad = rows - 2;
    s.q[(kTokens - rows + bad) * s.width() + 3] = kInf;  // the first head of a row
    const auto got = s.run(GetParam(), kTokens - rows, rows);
    for (std::size_t i = 0; i < got.size(); ++i) {
      const bool poisoned = i >= bad * s.width() && i < bad * s.width() + kDim;
      ASSERT_EQ(std::isnan(got[i]), poisoned) << i << " of " << rows << " rows";
      if (!poisoned) {
        ASSERT_EQ(got[i], clean[i]) << i << " of " << rows << " rows";
      }
    }
  }
}

TEST_P(AttentionInt8Test, GivesTheBitsOfTheScalarLevelWhenEveryPageHasALargerScore) {
  constexpr std::size_t kTokens = 700;
  for (const std::size_t dim : {32UL, 80UL, 128UL}) {
    Sequence s(shape_of(Compute::kInt, 5, 1, dim), kTokens, 12);
    for (std::size_t t = 0; t < kTokens; ++t) {
      std::vector<float> k = rows_of(s.k, dim, t, 1);
      for (float& x : k) x *= 0.01F * static_cast<float>(t);
      s.replace(t, 0, k.data(), s.v.data() + t * dim);
    }
    for (const std::size_t rows : {1UL, 3UL, 4UL, 20UL, 150UL})
      EXPECT_TRUE(same_bits(s.run(GetParam(), kTokens - rows, rows),
                            s.run(Isa::kScalar, kTokens - rows, rows)))
          << rows << " rows, head_dim " << dim;
  }
}

TEST_P(AttentionInt8Test, EqualKeysAndValuesGiveTheValue) {
  constexpr std::size_t kTokens = 1100, kDim = 24;  // two segments
  Sequence s(shape_of(Compute::kInt, 2, 1, kDim), kTokens, 15);
  std::vector<float> k(kDim, 0), v(kDim);
  for (std::size_t d = 0; d < kDim; ++d) v[d] = static_cast<float>(d) - 11;
  v[23] = 127;  // a scale of one
  for (std::size_t t = 0; t < kTokens; ++t) s.replace(t, 0, k.data(), v.data());
  for (const std::size_t row : {0UL, 1UL, 63UL, 64UL, 1023UL, 1024UL, 1099UL}) {
    const auto out = s.run(GetParam(), row, 1);
    for (std::size_t d = 0; d < kDim; ++d)
      ASSERT_NEAR(out[d], v[d], 1e-4F) << "row " << row << ", d " << d;
  }
}

TEST_P(AttentionInt8Test, PagesMayLieInAnyOrder) {
  const auto shape = shape_of(Compute::kInt, 4, 2, 64);
  const Sequence a(shape, 300, 9, 1), b(shape, 300, 9, 2);
  EXPECT_TRUE(same_bits(a.run(GetParam(), 250, 50), b.run(GetParam(), 250, 50)));
}

TEST_P(AttentionInt8Test, OutputIsRoundedForABf16Operand) {
  const Sequence s(shape_of(Compute::kInt, 2, 1, 32), 40, 14);
  std::vector<float> f32;
  std::vector<Bf16> bf16(40 * s.width());
  auto task = s.task(0, 40, f32);
  attention_for(GetParam())(s.shape, task, 0, 1);
  task.out = {Compute::kBf16, bf16.data(), 40, s.width(), s.width()};
  attention_for(GetParam())(s.shape, task, 0, 1);
  for (std::size_t i = 0; i < bf16.size(); ++i) ASSERT_EQ(bf16[i], f32_to_bf16(f32[i])) << i;
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, AttentionInt8Test, testing::ValuesIn(available_isas()),
                         isa_case);

TEST(AttentionInt8BatchTest, ThreadsAndBatchesDoNotChangeARow) {
  const auto shape = shape_of(Compute::kInt, 5, 1, 64);
  const Sequence a(shape, 2500, 10), b(shape, 77, 13);
  const auto want_a = a.run(active_isa(), 2499, 1), want_b = b.run(active_isa(), 0, 77);
  for (const unsigned threads : {1U, 2U, 5U}) {
    ThreadPool pool(threads);
    std::vector<float> out_a, out_b;
    const std::vector<AttentionTask> alone{a.task(2499, 1, out_a)};
    attention(shape, alone, pool);  // few blocks, three segments: split by segment
    EXPECT_TRUE(same_bits(out_a, want_a)) << threads;
    const std::vector<AttentionTask> both{b.task(0, 77, out_b), a.task(2499, 1, out_a)};
    attention(shape, both, pool);
    EXPECT_TRUE(same_bits(out_a, want_a)) << threads;
    EXPECT_TRUE(same_bits(out_b, want_b)) << threads;
  }
}

TEST(AttentionInt8BatchTest, StreamsDoNotChangeARow) {
  const Sequence s(shape_of(Compute::kInt, 5, 1, 80), 2100, 11);
  const auto want = s.run(Isa::kScalar, 2099, 1);
  const auto before = attention_detail::page_streams();
  for (const Isa isa : available_isas())
    for (const attention_detail::PageStreams streams :
         {attention_detail::PageStreams{1, 0}, attention_detail::PageStreams{1, 4096},
          attention_detail::PageStreams{1, 1 << 20}, attention_detail::PageStreams{2, 0},
          attention_detail::PageStreams{3, 0}, attention_detail::PageStreams{7, 0},
          attention_detail::PageStreams{1, 4096, true},
          attention_detail::PageStreams{2, 0, true}}) {
      attention_detail::set_page_streams(streams);
      EXPECT_TRUE(same_bits(s.run(isa, 2099, 1), want)) << isa_name(isa) << streams.streams;
    }
  attention_detail::set_page_streams(before);
}

TEST(PageProbeTest, SetsWhatItChose) {
  const auto before = attention_detail::page_streams();
  const auto chosen = tune_page_streams();
  EXPECT_GT(chosen.gbs, 0.1);
  EXPECT_EQ(attention_detail::page_streams().streams, chosen.streams);
  EXPECT_EQ(attention_detail::page_streams().ahead, chosen.ahead);
  EXPECT_EQ(attention_detail::page_streams().into_l2, chosen.into_l2);
  attention_detail::set_page_streams(before);
}

TEST(Int8PageTest, HoldsTheBytesOfTheContract) {
  const auto shape = shape_of(Compute::kInt, 1, 1, 72);  // D = 80: a part of 64 and one of 16
  ASSERT_EQ(shape.page_bytes(), 128 * 80 + 512UL);
  AlignedBuffer page(shape.page_bytes());
  std::vector<float> k(72), v(72);
  for (std::size_t d = 0; d < 72; ++d) k[d] = static_cast<float>(d + 1), v[d] = -2 * k[d];
  k[0] = 127, v[0] = 254;  // steps of 1 and 2
  append_kv(shape, page.data(), 5, k.data(), v.data());
  const auto x = page.as<std::uint8_t>();
  const auto* values = reinterpret_cast<const std::int8_t*>(x.data()) + 64 * 80;
  EXPECT_EQ(x[(1 * 64 + 5) * 4 + 3], 128 + 8);             // key d 7
  EXPECT_EQ(x[(18 * 64 + 5) * 4 + 1], 128);                // padding d 73
  EXPECT_EQ(values[(1 * 64 + 63) * 4 + 1], -64);           // value d 63
  EXPECT_EQ(values[64 * 64 + (1 * 16 + 7) * 4 + 1], -72);  // value d 71
  EXPECT_EQ(values[64 * 64 + (1 * 16 + 9) * 4 + 1], 0);    // padding d 73
  const auto* scales = reinterpret_cast<const float*>(x.data() + 128 * 80);
  EXPECT_EQ(scales[5], 1);
  EXPECT_EQ(scales[64 + 5], 2);
}

TEST(Int8PageTest, AVectorOfZerosHasScaleZero) {
  const auto shape = shape_of(Compute::kInt, 1, 1, 16);
  AlignedBuffer page(shape.page_bytes());
  const std::vector<float> zeros(16, 0), infinite(16, kInf);
  append_kv(shape, page.data(), 0, zeros.data(), infinite.data());
  const auto* scales = reinterpret_cast<const float*>(page.data() + 128 * 16);
  EXPECT_EQ(scales[0], 0);
  EXPECT_TRUE(std::isnan(scales[64]));
  EXPECT_EQ(std::to_integer<int>(page.data()[0]), 128);
}

}  // namespace
}  // namespace moesaic
