#include "common/kernels/attention.hpp"

#include <gtest/gtest.h>
#include <immintrin.h>

#include <algorithm>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "tests/support/kernel_values.hpp"
#include "tests/unit/kernels/attention_fixture.hpp"

namespace moesaic {
namespace {

using test::all_near;
using test::isa_case;
using test::portable_isas;
using test::same_bits;
using test::Sequence;
using test::shape_of;

using Case = test::AttentionCase;

const Case kCases[] = {
    {Compute::kBf16, 5, 1, 128, 130}, {Compute::kBf16, 4, 2, 32, 70},
    {Compute::kBf16, 3, 3, 40, 65},   {Compute::kBf16, 8, 1, 80, 97},
    {Compute::kBf16, 2, 1, 64, 1},    {Compute::kF32, 5, 1, 128, 130},
    {Compute::kF32, 4, 2, 32, 70},    {Compute::kF32, 3, 3, 40, 65},
    {Compute::kF32, 8, 1, 80, 97},    {Compute::kF32, 2, 1, 64, 33},
};

TEST(AttentionTest, EveryPortableLevelGivesTheBitsOfTheScalarOne) {
  for (const Case& c : kCases) {
    const Sequence s(shape_of(c.kv, c.heads, c.kv_heads, c.head_dim), c.tokens, 1);
    const auto want = s.run(Isa::kScalar, 0, c.tokens);
    for (const Isa isa : portable_isas())
      EXPECT_TRUE(same_bits(s.run(isa, 0, c.tokens), want))
          << isa_name(isa) << ", head_dim " << c.head_dim;
  }
}

TEST(AttentionTest, LevelsAgreeAcrossSegments) {
  for (const Compute kv : {Compute::kBf16, Compute::kF32}) {
    const Sequence s(shape_of(kv, 2, 1, 32), 2100, 3);
    const auto want = s.run(Isa::kScalar, 2080, 20);
    for (const Isa isa : portable_isas())
      EXPECT_TRUE(same_bits(s.run(isa, 2080, 20), want)) << isa_name(isa);
  }
}

TEST(AttentionTest, LevelsAgreeWhenScoresAndValuesAreDenormalOrLarge) {
  for (const float scale : {1e-38F, 1e-20F, 30.0F}) {
    Sequence s(shape_of(Compute::kBf16, 2, 1, 40), 90, 4);
    for (std::size_t t = 0; t < s.tokens; ++t) {
      std::vector<float> k(40), v(40);
      for (std::size_t d = 0; d < 40; ++d) {
        k[d] = s.k[t * 40 + d] * (t % 3 == 0 ? scale : 1);
        v[d] = s.v[t * 40 + d] * scale;
      }
      append_kv(s.shape, const_cast<std::byte*>(s.pages[t / kPageTokens]), t % kPageTokens,
                k.data(), v.data());
    }
    const auto want = s.run(Isa::kScalar, 0, 90);
    for (const Isa isa : portable_isas())
      EXPECT_TRUE(same_bits(s.run(isa, 0, 90), want)) << isa_name(isa) << ", scale " << scale;
  }
}

class AttentionLevelTest : public testing::TestWithParam<Isa> {};

TEST_P(AttentionLevelTest, IsNearTheReference) {
  for (const Case& c : kCases) {
    const Sequence s(shape_of(c.kv, c.heads, c.kv_heads, c.head_dim), c.tokens, 5);
    std::vector<float> want;
    attention_ref(s.shape, s.task(0, c.tokens, want));
    // bf16: q and the weights are rounded to 8 bits; scores here reach about 8, so an error of
    // 2^-9 * 8 in a score moves its weight by 1.5 %. f32: sums of at most 130 terms.
    const float tolerance = c.kv == Compute::kBf16 ? 0.04F : 2e-5F;
    EXPECT_TRUE(all_near(s.run(GetParam(), 0, c.tokens), want, tolerance, tolerance))
        << "head_dim " << c.head_dim;
  }
}

TEST_P(AttentionLevelTest, ADecodeRowIsAPrefillRowHoweverTheRowsAreChunked) {
  for (const Case& c : {Case{Compute::kBf16, 5, 1, 40, 200}, Case{Compute::kF32, 3, 1, 32, 200},
                        Case{Compute::kBf16, 2, 1, 32, 1100}}) {
    const Sequence s(shape_of(c.kv, c.heads, c.kv_heads, c.head_dim), c.tokens, 6);
    const auto all = s.run(GetParam(), 0, c.tokens);
    for (const std::size_t chunk : {1UL, 7UL, 64UL, 129UL}) {
      std::vector<float> parts;
      for (std::size_t first = 0; first < c.tokens; first += chunk) {
        const std::size_t rows = std::min(chunk, c.tokens - first);
        const auto part = s.run(GetParam(), first, rows);
        parts.insert(parts.end(), part.begin(), part.end());
      }
      EXPECT_TRUE(same_bits(parts, all)) << "chunks of " << chunk;
    }
  }
}

TEST_P(AttentionLevelTest, TokensAfterARowDoNotChangeIt) {
  // A cache that ends at the row, its page's tail NaN, and one that holds 60 tokens more.
  for (const Compute kv : {Compute::kBf16, Compute::kF32})
    for (const std::size_t tokens : {1UL, 31UL, 63UL, 64UL, 90UL}) {
      const auto shape = shape_of(kv, 3, 1, 48);
      const Sequence longer(shape, tokens + 60, 8);
      Sequence exact(shape, tokens, 8);
      for (std::size_t t = 0; t < tokens; ++t)
        append_kv(shape, const_cast<std::byte*>(exact.pages[t / kPageTokens]), t % kPageTokens,
                  longer.k.data() + t * 48, longer.v.data() + t * 48);
      exact.q.assign(longer.q.begin(),
                     longer.q.begin() + static_cast<std::ptrdiff_t>(tokens * exact.width()));
      EXPECT_TRUE(
          same_bits(exact.run(GetParam(), tokens - 1, 1), longer.run(GetParam(), tokens - 1, 1)));
    }
}

TEST_P(AttentionLevelTest, ThreeSegmentsAreNearTheReference) {
  for (const Compute kv : {Compute::kBf16, Compute::kF32}) {
    const Sequence s(shape_of(kv, 2, 1, 32), 2100, 17);
    std::vector<float> want;
    attention_ref(s.shape, s.task(2060, 40, want));
    const float tolerance = kv == Compute::kBf16 ? 0.02F : 2e-5F;
    EXPECT_TRUE(all_near(s.run(GetParam(), 2060, 40), want, tolerance, tolerance));
  }
}

TEST_P(AttentionLevelTest, EqualKeysGiveTheMeanOfTheValues) {
  for (const Compute kv : {Compute::kBf16, Compute::kF32}) {
    constexpr std::size_t kTokens = 1100, kDim = 24;  // two segments
    Sequence s(shape_of(kv, 2, 1, kDim), kTokens, 15);
    for (std::size_t t = 0; t < kTokens; ++t) {
      const std::vector<float> k(kDim, 0);
      std::vector<float> v(kDim);
      for (std::size_t d = 0; d < kDim; ++d) v[d] = static_cast<float>((t * 7 + d) % 16);
      append_kv(s.shape, const_cast<std::byte*>(s.pages[t / kPageTokens]), t % kPageTokens,
                k.data(), v.data());
    }
    // Sums of small integers are exact in any order, so the quotient is too.
    for (const std::size_t row : {0UL, 1UL, 63UL, 64UL, 1023UL, 1024UL, 1099UL}) {
      const auto out = s.run(GetParam(), row, 1);
      for (std::size_t d = 0; d < kDim; ++d) {
        float sum = 0;
        for (std::size_t t = 0; t <= row; ++t) sum += static_cast<float>((t * 7 + d) % 16);
        ASSERT_EQ(out[d], sum / static_cast<float>(row + 1)) << "row " << row << ", d " << d;
      }
    }
  }
}

TEST_P(AttentionLevelTest, DenormalsAreZeroInBf16PagesAndTheModeIsPutBack) {
  constexpr std::size_t kDim = 32;
  Sequence s(shape_of(Compute::kBf16, 1, 1, kDim), 1, 16);
  const std::vector<float> k(kDim, 1), v(kDim, 1e-39F);
  append_kv(s.shape, const_cast<std::byte*>(s.pages[0]), 0, k.data(), v.data());
  const unsigned before = _mm_getcsr() & 0x8040U;
  EXPECT_TRUE(same_bits(s.run(GetParam(), 0, 1), std::vector<float>(kDim, 0)));
  EXPECT_EQ(_mm_getcsr() & 0x8040U, before);
}

TEST_P(AttentionLevelTest, PagesMayLieInAnyOrder) {
  const auto shape = shape_of(Compute::kBf16, 4, 2, 64);
  const Sequence a(shape, 300, 9, 1), b(shape, 300, 9, 2);
  EXPECT_TRUE(same_bits(a.run(GetParam(), 250, 50), b.run(GetParam(), 250, 50)));
}

TEST_P(AttentionLevelTest, TheMemoryOfAPageIsThatOfTheContract) {
  const auto shape = shape_of(Compute::kBf16, 1, 1, 72);  // D = 80: a part of 64 and one of 16
  AlignedBuffer page(shape.page_bytes());
  std::vector<float> k(72), v(72);
  for (std::size_t d = 0; d < 72; ++d) k[d] = static_cast<float>(d + 1), v[d] = -k[d];
  append_kv(shape, page.data(), 5, k.data(), v.data());
  const auto x = page.as<Bf16>();
  EXPECT_EQ(bf16_to_f32(x[(3 * 64 + 5) * 2 + 1]), 8);                        // key d 7
  EXPECT_EQ(bf16_to_f32(x[(36 * 64 + 5) * 2]), 0);                           // padding d 72
  EXPECT_EQ(bf16_to_f32(x[64 * 80 + (2 * 64 + 63) * 2 + 1]), -64);           // value d 63
  EXPECT_EQ(bf16_to_f32(x[64 * 80 + 64 * 64 + (2 * 16 + 7) * 2 + 1]), -72);  // value d 71
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, AttentionLevelTest, testing::ValuesIn(available_isas()),
                         isa_case);

TEST(AttentionTest, ThreadsAndBatchesDoNotChangeARow) {
  const auto shape = shape_of(Compute::kBf16, 5, 1, 64);
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

TEST(AttentionTest, OutputIsRoundedForABf16Operand) {
  const Sequence s(shape_of(Compute::kBf16, 2, 1, 32), 40, 14);
  std::vector<float> f32;
  std::vector<Bf16> bf16(40 * s.width());
  auto task = s.task(0, 40, f32);
  attention_for(Isa::kScalar)(s.shape, task, 0, 1);
  task.out = {Compute::kBf16, bf16.data(), 40, s.width(), s.width()};
  attention_for(Isa::kScalar)(s.shape, task, 0, 1);
  for (std::size_t i = 0; i < bf16.size(); ++i) ASSERT_EQ(bf16[i], f32_to_bf16(f32[i])) << i;
}

}  // namespace
}  // namespace moesaic
