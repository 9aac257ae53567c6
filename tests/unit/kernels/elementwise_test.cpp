#include "common/kernels/elementwise.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/support/kernel_values.hpp"

namespace moesaic {
namespace {

using test::gaussian;
using test::isa_case;
using test::same_bits;

class ElementwiseTest : public testing::TestWithParam<Isa> {
 protected:
  const Elementwise& level = elementwise_for(GetParam());
  const Elementwise& scalar = elementwise_for(Isa::kScalar);
};

/// Values of every kind: ordinary, tiny, huge, zeros, infinities.
std::vector<float> mixed(std::size_t n, unsigned seed) {
  auto x = gaussian(n, seed, 3);
  const float special[] = {0.0F,
                           -0.0F,
                           1e-40F,
                           -1e-40F,
                           1e30F,
                           -1e30F,
                           88.0F,
                           -88.0F,
                           std::numeric_limits<float>::infinity(),
                           -std::numeric_limits<float>::infinity()};
  for (std::size_t i = 0; i < n; i += 3) x[i] = special[i / 3 % std::size(special)];
  return x;
}

TEST_P(ElementwiseTest, ExpIsTheScalarOneOverADenseSweepOfFloats) {
  // Every 1009th bit pattern of both signs, NaN left out: 4.2 million arguments.
  constexpr std::uint32_t kStep = 1009, kInfinity = 0x7f800000;
  constexpr std::size_t kChunk = 4096;
  std::vector<float> x, got(kChunk), want(kChunk);
  for (const std::uint32_t sign : {0U, 0x80000000U})
    for (std::uint32_t bits = 0; bits <= kInfinity;) {
      x.clear();
      for (; bits <= kInfinity && x.size() < kChunk; bits += kStep)
        x.push_back(std::bit_cast<float>(bits | sign));
      level.exp(x.data(), x.size(), got.data());
      for (std::size_t i = 0; i < x.size(); ++i)
        ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]),
                  std::bit_cast<std::uint32_t>(exp_portable(x[i])))
            << x[i];
    }
}

TEST_P(ElementwiseTest, ActivationsHaveTheBitsOfTheScalarLevelAtAnyLength) {
  for (std::size_t n = 0; n < 70; ++n) {
    const auto x = mixed(n, 1), u = gaussian(n, 2);
    std::vector<float> got(n + 1, 7), want(n + 1, 7);
    std::vector<Bf16> got16(n + 1, 7), want16(n + 1, 7);
    level.quick_gelu(x.data(), n, got.data(), got16.data());
    scalar.quick_gelu(x.data(), n, want.data(), want16.data());
    EXPECT_TRUE(same_bits(got, want) && same_bits(got16, want16)) << n;
    level.gelu_erf(x.data(), n, got.data(), got16.data());
    scalar.gelu_erf(x.data(), n, want.data(), want16.data());
    EXPECT_TRUE(same_bits(got, want) && same_bits(got16, want16)) << n;
    level.silu_mul(x.data(), u.data(), n, got.data(), got16.data());
    scalar.silu_mul(x.data(), u.data(), n, want.data(), want16.data());
    EXPECT_TRUE(same_bits(got, want) && same_bits(got16, want16)) << n;
    got = want = std::vector<float>(n + 1, 0.3F);
    level.add_to(x.data(), n, got.data());
    scalar.add_to(x.data(), n, want.data());
    EXPECT_TRUE(same_bits(got, want)) << n;
    level.to_bf16(x.data(), n, got16.data());
    scalar.to_bf16(x.data(), n, want16.data());
    EXPECT_TRUE(same_bits(got16, want16)) << n;
    level.from_bf16(want16.data(), n, got.data());
    scalar.from_bf16(want16.data(), n, want.data());
    EXPECT_TRUE(same_bits(got, want)) << n;
    const auto addend = want16;
    scalar.to_bf16(u.data(), n, want16.data());
    got16 = want16;
    level.add_to_bf16(addend.data(), n, got16.data());
    scalar.add_to_bf16(addend.data(), n, want16.data());
    EXPECT_TRUE(same_bits(got16, want16)) << n;
    EXPECT_EQ(got16.back(), 7);
  }
}

TEST_P(ElementwiseTest, RoundsToBf16AsTheDefinitionForEveryUpperHalf) {
  const std::uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
  std::vector<float> x(0x10000);
  std::vector<Bf16> got(x.size());
  for (const std::uint32_t l : low) {
    for (std::uint32_t i = 0; i < x.size(); ++i) x[i] = std::bit_cast<float>(i << 16 | l);
    level.to_bf16(x.data(), x.size(), got.data());
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(got[i], f32_to_bf16(x[i])) << i;
  }
}

TEST_P(ElementwiseTest, WorksInPlaceAndWithOneOutputOnly) {
  const auto x = gaussian(37, 5);
  std::vector<float> want(37), in_place = x;
  std::vector<Bf16> want16(37), got16(37);
  scalar.quick_gelu(x.data(), 37, want.data(), want16.data());
  level.quick_gelu(in_place.data(), 37, in_place.data(), nullptr);
  level.quick_gelu(x.data(), 37, nullptr, got16.data());
  EXPECT_TRUE(same_bits(in_place, want));
  EXPECT_TRUE(same_bits(got16, want16));
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, ElementwiseTest, testing::ValuesIn(available_isas()), isa_case);

TEST(ElementwiseTest, ExpIsWithinItsErrorBound) {
  // The rounding of x * log2(e) and of log2(e) itself add |x| * (6e-8 + 1.4e-8) to the 2e-7 of the
  // polynomial.
  for (double x = -87; x <= 87; x += 0.00037) {
    const auto argument = static_cast<float>(x);
    const double want = std::exp(static_cast<double>(argument));
    ASSERT_NEAR(exp_portable(argument) / want, 1, 3e-7 + 7.5e-8 * std::fabs(x)) << x;
  }
  EXPECT_EQ(exp_portable(0), 1);
  EXPECT_EQ(exp_portable(-1e30F), 0x1p-126F);
  EXPECT_EQ(exp_portable(1e30F), 0x1p126F);
}

TEST(ElementwiseTest, ErfIsWithinItsErrorBound) {
  // 1.5e-7 of the formula and half a dozen roundings of values near 1.
  for (double x = -6; x <= 6; x += 0.0003)
    ASSERT_NEAR(erf_portable(static_cast<float>(x)), std::erf(x), 5.5e-7) << x;
  EXPECT_EQ(erf_portable(10), 1);
  EXPECT_EQ(erf_portable(-10), -1);
}

TEST(ElementwiseTest, ActivationsAreNearTheirDefinitions) {
  std::vector<float> x, u;
  for (int i = -400; i <= 400; ++i) x.push_back(static_cast<float>(i) / 40), u.push_back(1.5F);
  std::vector<float> quick(x.size()), exact(x.size()), silu(x.size());
  quick_gelu(x.data(), x.size(), quick.data(), nullptr);
  gelu_erf(x.data(), x.size(), exact.data(), nullptr);
  silu_mul(x.data(), u.data(), x.size(), silu.data(), nullptr);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double v = x[i];
    EXPECT_NEAR(quick[i], v / (1 + std::exp(-1.702 * v)), 1e-6 * (1 + std::fabs(v)));
    EXPECT_NEAR(exact[i], 0.5 * v * (1 + std::erf(v / std::sqrt(2.0))), 3e-7 * (1 + std::fabs(v)));
    EXPECT_NEAR(silu[i], 1.5 * v / (1 + std::exp(-v)), 1e-6 * (1 + std::fabs(v)));
  }
}

}  // namespace
}  // namespace moesaic
