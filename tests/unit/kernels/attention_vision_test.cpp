#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "common/kernels/attention.hpp"
#include "common/kernels/rope.hpp"
#include "tests/support/kernel_values.hpp"

namespace moesaic {
namespace {

using test::all_near;
using test::gaussian;
using test::isa_case;
using test::same_bits;

struct Frame {
  std::size_t patches, heads, head_dim;
};

const Frame kFrames[] = {{1, 2, 40},   {4, 1, 32},   {33, 1, 128}, {100, 2, 80}, {256, 1, 64},
                         {300, 2, 40}, {321, 1, 32}, {513, 2, 80}, {545, 1, 128}};

std::vector<float> values(const Frame& f, unsigned seed, float scale = 1.5F) {
  return gaussian(f.patches * 3 * f.heads * f.head_dim, seed, scale);
}

bool portable(Isa isa, Compute compute) {
  return isa != Isa::kAvx512Bf16 || compute == Compute::kF32;
}

/// The result as f32; a bf16 result is widened.
std::vector<float> run(Isa isa, const Frame& f, std::vector<float> qkv, Compute compute,
                       ThreadPool& pool, const RopeAngles& angles = {}) {
  const std::size_t width = f.heads * f.head_dim;
  std::vector<float> out(f.patches * width, -1);
  if (compute == Compute::kF32) {
    attention_vision_for(isa)(qkv.data(), angles, f.patches, f.heads, f.head_dim,
                              {compute, out.data(), f.patches, width, width}, pool);
    return out;
  }
  std::vector<Bf16> rounded(out.size());
  attention_vision_for(isa)(qkv.data(), angles, f.patches, f.heads, f.head_dim,
                            {compute, rounded.data(), f.patches, width, width}, pool);
  std::transform(rounded.begin(), rounded.end(), out.begin(), bf16_to_f32);
  return out;
}

class AttentionVisionTest : public testing::TestWithParam<Isa> {};

TEST_P(AttentionVisionTest, GivesTheBitsOfTheScalarLevel) {
  ThreadPool pool(1);
  for (const Frame& f : kFrames)
    for (const Compute compute : {Compute::kF32, Compute::kBf16}) {
      if (!portable(GetParam(), compute)) continue;
      const auto qkv = values(f, 1);
      EXPECT_TRUE(same_bits(run(GetParam(), f, qkv, compute, pool),
                            run(Isa::kScalar, f, qkv, compute, pool)))
          << f.patches << " patches, head_dim " << f.head_dim;
    }
}

TEST_P(AttentionVisionTest, ScoresFarApartAndDenormalsGiveTheBitsOfTheScalarLevel) {
  if (!portable(GetParam(), Compute::kBf16)) GTEST_SKIP() << "its own order of sums";
  ThreadPool pool(1);
  for (const Frame& f : {Frame{290, 2, 80}, Frame{530, 1, 40}})
    // Scores in the hundreds and thousands, and products that underflow.
    for (const float scale : {20.0F, 60.0F, 1e-20F, 1e-38F}) {
      const auto qkv = values(f, 5, scale);
      EXPECT_TRUE(same_bits(run(GetParam(), f, qkv, Compute::kBf16, pool),
                            run(Isa::kScalar, f, qkv, Compute::kBf16, pool)))
          << f.patches << " patches, scale " << scale;
    }
}

TEST_P(AttentionVisionTest, ScoresThatRiseFromBlockToBlockAreNearTheReference) {
  ThreadPool pool(1);
  const Frame f{1024, 1, 64};
  // Blocks of 256 keys, whose scores lie around 0, 7, 14 and 23: the maximum stays, moves, moves.
  auto qkv = values(f, 9, 0.5F);
  for (std::size_t p = 0; p < f.patches; ++p) {
    float* row = &qkv[p * 3 * f.head_dim];
    row[0] = 8;  // of q, the root of head_dim
    row[f.head_dim] = std::array{0.0F, 7.0F, 14.0F, 23.0F}[p / 256];
  }
  std::vector<float> want(f.patches * f.head_dim);
  attention_vision_ref(qkv.data(), f.patches, f.heads, f.head_dim,
                       {Compute::kF32, want.data(), f.patches, f.head_dim, f.head_dim});
  for (const Compute compute : {Compute::kF32, Compute::kBf16}) {
    const auto y = run(GetParam(), f, qkv, compute, pool);
    const float tolerance = compute == Compute::kBf16 ? 0.02F : 3e-5F;
    EXPECT_TRUE(all_near(y, want, tolerance, tolerance));
    if (!portable(GetParam(), compute)) continue;
    EXPECT_TRUE(same_bits(y, run(Isa::kScalar, f, qkv, compute, pool)));
  }
}

TEST_P(AttentionVisionTest, APatchThatIsNotFiniteMakesNoOtherQueryFinite) {
  ThreadPool pool(1);
  const Frame f{300, 1, 80};
  auto qkv = values(f, 6);
  const std::size_t patch = 7;
  qkv[patch * 3 * f.head_dim] = std::numeric_limits<float>::infinity();  // in q
  const auto y = run(GetParam(), f, qkv, Compute::kBf16, pool);
  for (std::size_t p = 0; p < f.patches; ++p)
    for (std::size_t d = 0; d < f.head_dim; ++d)
      ASSERT_EQ(std::isfinite(y[p * f.head_dim + d]), p != patch) << "patch " << p << " d " << d;
}

TEST_P(AttentionVisionTest, TurnsQueriesAndKeysByTheAngles) {
  ThreadPool pool(2);
  for (const Frame& f : {Frame{70, 2, 40}, Frame{260, 2, 80}, Frame{64, 1, 128}})
    for (const Compute compute : {Compute::kF32, Compute::kBf16}) {
      const auto qkv = values(f, 7);
      const auto cos = gaussian(f.patches * f.head_dim / 2, 8);
      const auto sin = gaussian(f.patches * f.head_dim / 2, 9);
      auto turned = qkv;
      for (std::size_t p = 0; p < f.patches; ++p)
        rope_vision(&turned[p * 3 * f.heads * f.head_dim], 2 * f.heads, f.head_dim,
                    &cos[p * f.head_dim / 2], &sin[p * f.head_dim / 2]);
      EXPECT_TRUE(same_bits(run(GetParam(), f, qkv, compute, pool, {cos.data(), sin.data()}),
                            run(GetParam(), f, turned, compute, pool)))
          << f.patches << " patches, head_dim " << f.head_dim;
    }
}

TEST_P(AttentionVisionTest, IsNearTheReference) {
  ThreadPool pool(1);
  for (const Frame& f : kFrames)
    for (const Compute compute : {Compute::kF32, Compute::kBf16}) {
      const auto qkv = values(f, 2);
      const std::size_t width = f.heads * f.head_dim;
      std::vector<float> want(f.patches * width);
      attention_vision_ref(qkv.data(), f.patches, f.heads, f.head_dim,
                           {Compute::kF32, want.data(), f.patches, width, width});
      // bf16: operands of 8 bits and scores up to about 8; f32: sums of at most 300 terms.
      const float tolerance = compute == Compute::kBf16 ? 0.05F : 3e-5F;
      EXPECT_TRUE(all_near(run(GetParam(), f, qkv, compute, pool), want, tolerance, tolerance))
          << f.patches << " patches, head_dim " << f.head_dim;
    }
}

TEST_P(AttentionVisionTest, ThreadsDoNotChangeBits) {
  const Frame f{300, 2, 40};
  const auto qkv = values(f, 3);
  ThreadPool one(1), three(3);
  EXPECT_TRUE(same_bits(run(GetParam(), f, qkv, Compute::kBf16, one),
                        run(GetParam(), f, qkv, Compute::kBf16, three)));
}

TEST_P(AttentionVisionTest, ASmallFrameAfterALargeOneSeesNothingOfIt) {
  ThreadPool pool(1);
  const Frame small{70, 2, 40};
  const auto qkv = values(small, 4);
  const auto before = run(GetParam(), small, qkv, Compute::kBf16, pool);
  const Frame large{300, 2, 40};
  run(GetParam(), large, std::vector<float>(300 * 3 * 80, 1e30F), Compute::kBf16, pool);
  EXPECT_TRUE(same_bits(run(GetParam(), small, qkv, Compute::kBf16, pool), before));
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, AttentionVisionTest, testing::ValuesIn(available_isas()),
                         isa_case);

}  // namespace
}  // namespace moesaic
