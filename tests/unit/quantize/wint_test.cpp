#include "common/quantize/wint.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/unit/quantize/samples.hpp"

namespace moesaic {
namespace {

struct Wint {
  int bits;
  std::size_t k, n;
  std::vector<std::uint8_t> bytes;
  std::vector<float> scales;
  WintView view() const { return {bits, k, n, bytes, scales}; }
};

/// q of (k, n), in every value the format has.
int integer_at(int bits, std::size_t k, std::size_t n) {
  const int most = bits == 8 ? 127 : 7;
  return static_cast<int>((k * 7 + n * 13) % static_cast<std::size_t>(2 * most + 1)) - most;
}

Wint made(int bits, std::size_t k, std::size_t n) {
  Wint w{bits, k, n, {}, {}};
  const std::size_t step = bits == 8 ? 1 : 2;
  for (std::size_t i = 0; i < k; i += step)
    for (std::size_t j = 0; j < n; ++j)
      w.bytes.push_back(static_cast<std::uint8_t>(
          bits == 8 ? integer_at(8, i, j)
                    : (integer_at(4, i, j) & 15) | (integer_at(4, i + 1, j) & 15) << 4));
  for (std::size_t j = 0; j < n; ++j) w.scales.push_back(0.01F * static_cast<float>(j + 1));
  return w;
}

TEST(WintTest, PanelsKeepIntegersAndScales) {
  for (const int bits : {8, 4})
    for (const auto& [k, n] : {std::pair{64, 32}, std::pair{70, 45}, std::pair{192, 1}}) {
      const auto w = made(bits, static_cast<std::size_t>(k), static_cast<std::size_t>(n));
      const auto packed = pack_wint(w.view(), false);
      ASSERT_TRUE(packed) << packed.error().what;
      EXPECT_EQ(packed->format, bits == 8 ? WeightFormat::kW8r : WeightFormat::kW4r);
      for (std::size_t row = 0; row < packed->panels() * 32; ++row) {
        const bool real = row < w.n;
        EXPECT_EQ(row_scale(*packed, row / 32, row % 32), real ? w.scales[row] : 0.0F);
        for (std::size_t i = 0; i < packed->padded_cols(); ++i)
          ASSERT_EQ(integer_weight(*packed, row / 32, row % 32, i),
                    real && i < w.k ? integer_at(bits, i, row) : 0)
              << row << ' ' << i;
      }
    }
}

TEST(WintTest, DecodesColumnsToProductsOfIntegerAndScale) {
  for (const int bits : {8, 4}) {
    const auto w = made(bits, 6, 5);
    std::vector<float> out(2 * 6);
    decode(w.view(), 3, 2, out);
    for (std::size_t c = 0; c < 2; ++c)
      for (std::size_t k = 0; k < 6; ++k)
        EXPECT_EQ(out[c * 6 + k], static_cast<float>(integer_at(bits, k, 3 + c)) * w.scales[3 + c]);
  }
  // Low nibble the even row, two's complement.
  const std::vector<std::uint8_t> byte = {0xE3};
  const std::vector<float> one = {0.5F};
  std::vector<float> two(2);
  decode({4, 2, 1, byte, one}, 0, 1, two);
  EXPECT_EQ(two, (std::vector<float>{1.5F, -1.0F}));
}

TEST(WintTest, AFusedMatrixInterleavesItsHalves) {
  for (const int bits : {8, 4}) {
    const auto w = made(bits, 64, 2 * 20);
    const auto both = pack_wint(w.view(), true);
    const auto plain = pack_wint(w.view(), false);
    ASSERT_TRUE(both && plain);
    EXPECT_EQ(both->rows, 20U);
    EXPECT_EQ(weights_of(*both), weights_of(*plain));
    EXPECT_EQ(pack_wint(made(bits, 64, 7).view(), true).error().code, Errc::kShapeMismatch);
  }
}

TEST(WintTest, BrokenTensorsAreNamed) {
  const auto says = [](int bits, auto&& change) {
    auto w = made(bits, 6, 3);
    change(w);
    const auto packed = pack_wint(w.view(), false);
    return packed ? "" : packed.error().what;
  };
  const auto nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(says(8, [](Wint&) {}), "");
  EXPECT_EQ(says(8, [](Wint& w) { w.bytes.pop_back(); }), "quant_weight: 17 elements, 18 expected");
  EXPECT_EQ(says(4, [](Wint& w) { w.bytes.push_back(0); }),
            "quant_weight: 10 elements, 9 expected");
  EXPECT_EQ(says(4, [](Wint& w) { w.k = 5; }), "quant_weight: 5 rows of 4 bits are not pairs");
  EXPECT_EQ(says(8, [](Wint& w) { w.scales.pop_back(); }), "weight_scale: 2 elements, 3 expected");
  EXPECT_EQ(says(8, [&](Wint& w) { w.scales[1] = nan; }), "weight_scale: column 1 is nan");
  EXPECT_EQ(says(4, [](Wint& w) { w.scales[2] = -1; }), "weight_scale: column 2 is -1.000000");
  EXPECT_EQ(says(8, [](Wint& w) { w.bytes[4 * 3 + 2] = 0x80; }),
            "quant_weight: row 4, column 2 is -128, -127 to 127 expected: biased or permuted for "
            "one kernel?");
  EXPECT_EQ(says(4, [](Wint& w) { w.bytes[1 * 3 + 1] = 0x81; }),
            "quant_weight: row 3, column 1 is -8, -7 to 7 expected: biased or permuted for one "
            "kernel?");
}

}  // namespace
}  // namespace moesaic
