#include "common/quantize/quantize.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <utility>

#include "common/kernels/integer_weight.hpp"
#include "tests/unit/quantize/samples.hpp"

namespace moesaic {
namespace {

std::vector<float> gaussian(std::size_t n, std::uint64_t seed, float sigma = 0.02F) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, sigma);
  std::vector<float> values(n);
  for (auto& v : values) v = normal(random);
  return values;
}

MatrixView view(const std::vector<float>& w, std::size_t rows, std::size_t cols) {
  return {reinterpret_cast<const std::byte*>(w.data()),
          DType::kF32,
          rows,
          cols,
          static_cast<std::ptrdiff_t>(cols),
          1};
}

double value(const PackedMatrix& w, std::size_t row, std::size_t k) {
  return double{row_scale(w, row / 32, row % 32)} * integer_weight(w, row / 32, row % 32, k);
}

double snr_db(const std::vector<float>& w, const PackedMatrix& packed) {
  double signal = 0, noise = 0;
  for (std::size_t r = 0; r < packed.rows; ++r)
    for (std::size_t k = 0; k < packed.cols; ++k) {
      const double x = w[r * packed.cols + k], d = x - value(packed, r, k);
      signal += x * x;
      noise += d * d;
    }
  return 10 * std::log10(signal / noise);
}

TEST(QuantizeTest, SignalToNoiseIsThatOfTheFormat) {
  const auto w = gaussian(std::size_t{64} * 2560, 1);
  const auto snr = [&](WeightFormat format, QuantMethod method) {
    return snr_db(w, *quantize_matrix(view(w, 64, 2560), {format, method}, nullptr, nullptr));
  };
  EXPECT_NEAR(snr(WeightFormat::kW4r, QuantMethod::kSearch), 22.1, 0.3);
  EXPECT_GT(snr(WeightFormat::kW4r, QuantMethod::kSearch),
            snr(WeightFormat::kW4r, QuantMethod::kAbsmax) + 0.5);
  EXPECT_GT(snr(WeightFormat::kW4r, QuantMethod::kAbsmax), 19.5);
  EXPECT_GT(snr(WeightFormat::kW8r, QuantMethod::kAbsmax), 41);
}

TEST(QuantizeTest, OddShapesArePaddedWithZeros) {
  for (const auto format : {WeightFormat::kW8r, WeightFormat::kW4r})
    for (const auto method : {QuantMethod::kAbsmax, QuantMethod::kSearch}) {
      const auto w = gaussian(33 * 70, 2);
      const auto packed = quantize_matrix(view(w, 33, 70), {format, method}, nullptr, nullptr);
      ASSERT_TRUE(packed);
      EXPECT_EQ(packed->panels(), 2U);
      for (std::size_t row = 0; row < 64; ++row)
        for (std::size_t k = 0; k < 128; ++k) {
          const double got = value(*packed, row, k);
          if (row < 33 && k < 70)
            EXPECT_NEAR(got, w[row * 70 + k], format == WeightFormat::kW8r ? 4e-4 : 6e-3);
          else
            EXPECT_EQ(got, 0) << row << " " << k;
        }
    }
}

TEST(QuantizeTest, GateAndUpAreInterleaved) {
  const auto gate = gaussian(24 * 64, 3), up = gaussian(24 * 64, 4);
  const auto packed =
      quantize_gate_up(view(gate, 24, 64), view(up, 24, 64),
                       {WeightFormat::kW8r, QuantMethod::kAbsmax}, nullptr, nullptr);
  ASSERT_TRUE(packed);
  for (std::size_t i = 0; i < 24; ++i)
    for (std::size_t k = 0; k < 64; ++k) {
      const auto at = [&](std::size_t row) {
        return row_scale(*packed, i / 16, row) *
               static_cast<float>(integer_weight(*packed, i / 16, row, k));
      };
      EXPECT_NEAR(at(i % 16), gate[i * 64 + k], 4e-4);
      EXPECT_NEAR(at(16 + i % 16), up[i * 64 + k], 4e-4);
    }
}

TEST(QuantizeTest, ThreadsAndElementTypesDoNotChangeBytes) {
  auto w = gaussian(std::size_t{100} * 192, 5);
  std::vector<Bf16> bf16(w.size());
  for (std::size_t i = 0; i < w.size(); ++i) w[i] = bf16_to_f32(bf16[i] = f32_to_bf16(w[i]));
  const MatrixView rounded{
      reinterpret_cast<const std::byte*>(bf16.data()), DType::kBf16, 100, 192, 192, 1};
  ThreadPool pool(3);
  for (const auto format : {WeightFormat::kW8r, WeightFormat::kW4r}) {
    const QuantSpec spec{format, QuantMethod::kSearch};
    const auto a = quantize_matrix(view(w, 100, 192), spec, nullptr, nullptr);
    const auto b = quantize_matrix(rounded, spec, nullptr, &pool);
    ASSERT_TRUE(a && b);
    EXPECT_EQ(std::memcmp(a->data, b->data, a->bytes()), 0);
  }
}

TEST(QuantizeTest, EveryLevelGivesTheSameBytes) {
  ThreadPool pool(3);
  for (const auto& [rows, cols] : {std::pair{70, 200}, std::pair{33, 7}, std::pair{32, 512}}) {
    const auto n = static_cast<std::size_t>(rows), k = static_cast<std::size_t>(cols);
    auto w = gaussian(n * k, 8);
    w[5] = 0.4F;
    std::fill_n(w.begin() + static_cast<std::ptrdiff_t>(k), k, 0.0F);
    for (const auto format : kFormats)
      for (const auto method : {QuantMethod::kAbsmax, QuantMethod::kSearch}) {
        QuantSpec spec{format, method, ccq2_code_pairs().first(2)};
        spec.isa = Isa::kScalar;
        const auto want = quantize_matrix(view(w, n, k), spec, nullptr, nullptr);
        ASSERT_TRUE(want);
        for (const Isa isa : available_isas()) {
          spec.isa = isa;
          const auto got = quantize_matrix(view(w, n, k), spec, nullptr, &pool);
          ASSERT_TRUE(got);
          EXPECT_EQ(std::memcmp(got->data, want->data, want->bytes()), 0)
              << isa_name(isa) << ' ' << format_name(format);
        }
      }
  }
}

TEST(QuantizeTest, StridesOfTheSourceChangeNothing) {
  const std::size_t rows = 37, cols = 90;
  auto w = gaussian(rows * cols, 9);
  std::vector<Bf16> stored(w.size());  // transposed
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t c = 0; c < cols; ++c)
      w[r * cols + c] = bf16_to_f32(stored[c * rows + r] = f32_to_bf16(w[r * cols + c]));
  const MatrixView turned{
      reinterpret_cast<const std::byte*>(stored.data()), DType::kU16, rows, cols, 1, rows};
  for (const auto format : kFormats)
    for (const auto method : {QuantMethod::kAbsmax, QuantMethod::kSearch}) {
      const auto want = quantize_matrix(view(w, rows, cols), {format, method}, nullptr, nullptr);
      const auto got = quantize_matrix(turned, {format, method}, nullptr, nullptr);
      ASSERT_TRUE(want && got);
      EXPECT_EQ(std::memcmp(got->data, want->data, want->bytes()), 0);
    }
}

TEST(QuantizeTest, RowsOfZerosAndOfTinyOrHugeValuesStayFinite) {
  std::vector<float> w(4 * 64, 0.0F);
  w[64] = 1e-42F;  // row 1: denormal
  for (std::size_t k = 0; k < 64; ++k) w[128 + k] = k % 2 == 0 ? 3e38F : -1e-30F;
  w[192 + 5] = -7.0F;  // row 3: one outlier
  for (const auto format : {WeightFormat::kW8r, WeightFormat::kW4r})
    for (const auto method : {QuantMethod::kAbsmax, QuantMethod::kSearch}) {
      const auto packed = quantize_matrix(view(w, 4, 64), {format, method}, nullptr, nullptr);
      ASSERT_TRUE(packed);
      for (std::size_t k = 0; k < 64; ++k) {
        EXPECT_EQ(value(*packed, 0, k), 0);
        EXPECT_NEAR(value(*packed, 1, k), 0, 1e-38);
        EXPECT_NEAR(value(*packed, 2, k) / 3e38, w[128 + k] / 3e38, 0.08);
        EXPECT_NEAR(value(*packed, 3, k), w[192 + k], 0.5);
      }
    }
}

TEST(QuantizeTest, TheFirstOfSeveralBadWeightsIsNamed) {
  ThreadPool pool(3);
  auto w = gaussian(300 * 64, 10);
  for (const std::size_t row : {290U, 100U, 70U, 35U})
    w[row * 64 + 1] = std::numeric_limits<float>::infinity();
  for (const auto format : kFormats)
    for (int round = 0; round < 10; ++round) {
      const auto bad =
          quantize_matrix(view(w, 300, 64), {format, QuantMethod::kSearch}, nullptr, &pool);
      ASSERT_FALSE(bad);
      EXPECT_EQ(bad.error().what, "row 35, column 1: inf is not a weight");
    }
}

TEST(QuantizeTest, WeightsThatAreNotFiniteAreRefusedByPlace) {
  auto w = gaussian(40 * 64, 6);
  w[33 * 64 + 17] = std::numeric_limits<float>::quiet_NaN();
  const QuantSpec spec{WeightFormat::kW4r, QuantMethod::kAbsmax};
  const auto bad = quantize_matrix(view(w, 40, 64), spec, nullptr, nullptr);
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().what, testing::HasSubstr("row 33, column 17: "));
  w[33 * 64 + 17] = -std::numeric_limits<float>::infinity();
  const auto good = gaussian(40 * 64, 7);
  const auto up = quantize_gate_up(view(good, 40, 64), view(w, 40, 64), spec, nullptr, nullptr);
  ASSERT_FALSE(up);
  EXPECT_THAT(up.error().what, testing::HasSubstr("up row 33, column 17: -inf"));
}

}  // namespace
}  // namespace moesaic
