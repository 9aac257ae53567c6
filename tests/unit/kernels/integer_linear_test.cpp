#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "common/kernels/ccq_layout.hpp"
#include "common/kernels/cpu/integer_level.hpp"
#include "common/kernels/elementwise.hpp"
#include "common/kernels/integer_weight.hpp"
#include "common/kernels/linear.hpp"
#include "common/kernels/quantize_rows.hpp"
#include "common/kernels/stream_probe.hpp"
#include "tests/support/integer_matrix.hpp"
#include "tests/unit/kernels/linear_fixture.hpp"

namespace moesaic {
namespace {

using test::random_integer_matrix;

std::vector<float> random_rows(std::size_t rows, std::size_t cols, std::uint64_t seed) {
  std::vector<float> x(rows * cols);
  for (auto& value : x) {
    seed = seed * 6364136223846793005U + 1442695040888963407U;
    value = (static_cast<float>(seed >> 40) * 0x1p-24F - 0.5F) * (seed >> 20 & 63U ? 1.0F : 30.0F);
  }
  return x;
}

Operand f32_operand(const std::vector<float>& x, std::size_t rows, std::size_t cols) {
  return {Compute::kF32, x.data(), rows, cols, cols};
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i)
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) return false;
  return a.size() == b.size();
}

std::vector<float> run(Isa isa, const PackedMatrix& w, const Operand& x) {
  std::vector<float> y(x.rows * w.rows, -1.0F);
  linear_for(isa)(w, x, y.data(), w.rows, nullptr, 0, w.panels());
  return y;
}

TEST(IntegerWeightTest, ReadsTheWorkedExampleOfW4r) {
  // K = 64, row 17, k = 29: byte 645 of the panel, multiplier word at 162.
  PackedMatrix w;
  w.format = WeightFormat::kW4r;
  w.rows = 32;
  w.cols = 64;
  AlignedBuffer panel(w.bytes());
  ASSERT_EQ(w.bytes(), 128U + 1088U);
  panel.data()[645] = std::byte{0xC5};
  panel.data()[162] = std::byte{0x30};
  const float scale = 0.001F;
  std::memcpy(panel.data() + 4 * 17, &scale, 4);
  w.data = panel.data();
  EXPECT_EQ(integer_weight(w, 0, 17, 29), 12);
  EXPECT_EQ(integer_weight(w, 0, 17, 25), -9);
  EXPECT_EQ(row_scale(w, 0, 17), 0.001F);
}

TEST(IntegerWeightTest, ReadsTheWorkedExampleOfCcq2) {
  PackedMatrix w;
  w.format = WeightFormat::kCcq2;
  w.rows = 32;
  w.cols = 128;
  AlignedBuffer panel(w.bytes());
  ASSERT_EQ(w.bytes(), 384U + 1088U);
  const float constants[] = {0.00099945068359375F, 121, 950};
  for (std::size_t i = 0; i < 3; ++i) std::memcpy(panel.data() + 128 * i + 4 * 3, constants + i, 4);
  panel.data()[384 + 3] = std::byte{12};
  panel.data()[384 + 32 + 3] = std::byte{5};
  panel.data()[384 + 64 + 3] = std::byte{0xA7};            // k = 0..3
  panel.data()[384 + 64 + 16 * 32 + 3] = std::byte{0x5A};  // k = 64..67
  w.data = panel.data();
  const int first[] = {9, -22, -12, 5}, second[] = {-9, 25, -24, -32};
  for (std::size_t j = 0; j < 4; ++j) {
    EXPECT_EQ(integer_weight(w, 0, 3, j), 12 * first[j]);
    EXPECT_EQ(integer_weight(w, 0, 3, 64 + j), 5 * second[j]);
  }
  EXPECT_FLOAT_EQ(static_cast<float>(integer_weight(w, 0, 3, 0)) * row_scale(w, 0, 3), 0.10794067F);
  EXPECT_EQ(ccq2_code(0x5A, 128.5F, -3.25F), 11562);
}

/// A panel of one block of 64 k; units of row 17 as a file has them.
template <class Unit>
PackedMatrix one_block(WeightFormat format, std::size_t (*place)(std::size_t, std::size_t),
                       const std::vector<Unit>& units) {
  PackedMatrix w;
  w.format = format;
  w.rows = 32;
  w.cols = 64;
  auto panel = std::make_shared<AlignedBuffer>(w.bytes());
  for (std::size_t u = 0; u < units.size(); ++u)
    std::memcpy(panel->data() + 128 + place(u, 17), &units[u], sizeof(Unit));
  w.data = panel->data();
  w.owner = panel;
  return w;
}

TEST(IntegerWeightTest, ReadsTheWorkedExampleOfCcq25) {
  std::vector<std::uint16_t> units(10, 0xB6D5);
  units[9] = 0x6123;
  const auto w = one_block(WeightFormat::kCcq25, ccq25_unit, units);
  EXPECT_EQ(w.bytes(), 128U + 640U);
  constexpr int kWord[] = {1, 2, -1, -1, 1, 1, 1};
  for (std::size_t k = 0; k < 63; ++k) EXPECT_EQ(integer_weight(w, 0, 17, k), 291 * kWord[k % 7]);
  EXPECT_EQ(integer_weight(w, 0, 17, 63), 291 * -1);
  EXPECT_EQ(integer_weight(w, 0, 16, 63), 0);
}

TEST(IntegerWeightTest, ReadsTheWorkedExampleOfCcq275) {
  std::vector<std::uint8_t> units(22, 0x9C);
  units[21] = 0xA7;
  const auto w = one_block(WeightFormat::kCcq275, ccq275_unit, units);
  EXPECT_EQ(w.bytes(), 128U + 704U);
  constexpr int kWord[] = {1, -1, 4};
  for (std::size_t k = 0; k < 63; ++k) EXPECT_EQ(integer_weight(w, 0, 17, k), 7 * kWord[k % 3]);
  EXPECT_EQ(integer_weight(w, 0, 17, 63), 7 * 2);
  EXPECT_EQ(integer_weight(w, 0, 18, 0), 0);
}

TEST(IntegerWeightTest, EveryUnitOfCcqHasTheLevelsOfItsWindows) {
  constexpr int kShifts[] = {13, 11, 9, 6, 4, 2, 0};
  for (std::uint32_t word = 0; word < 65536; word += 7) {
    std::vector<std::uint16_t> units(10, static_cast<std::uint16_t>(word));
    units[9] = 0x0001;
    const auto w = one_block(WeightFormat::kCcq25, ccq25_unit, units);
    for (std::size_t k = 0; k < 63; ++k)
      ASSERT_EQ(integer_weight(w, 0, 17, k), static_cast<int>(word >> kShifts[k % 7] & 7) - 4);
  }
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    std::vector<std::uint8_t> units(22, static_cast<std::uint8_t>(byte));
    units[21] = 0x01;
    const auto w = one_block(WeightFormat::kCcq275, ccq275_unit, units);
    for (std::size_t k = 0; k < 63; ++k)
      ASSERT_EQ(integer_weight(w, 0, 17, k), static_cast<int>(byte >> (4 - 2 * (k % 3)) & 15) - 8);
  }
}

struct QuantizeCase {
  const char* name;
  std::vector<float> x;
};

class QuantizeRowTest : public testing::TestWithParam<Isa> {};

TEST_P(QuantizeRowTest, GivesTheBitsOfTheScalarLevel) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  auto rows = std::vector<std::vector<float>>{
      random_rows(1, 1, 1),      random_rows(1, 63, 2),     random_rows(1, 192, 3),
      random_rows(1, 588, 4),    random_rows(1, 2560, 5),   std::vector<float>(130, 0.0F),
      {1e-40F, -2e-40F, 1e-38F}, {3.4e38F, -3.4e38F, 1.0F}, {1.0F, nan, 2.0F},
      {1.0F, -inf, 2.0F}};
  rows.push_back(random_rows(1, 100, 6));
  rows.back()[70] = nan;  // the second block of two
  for (const auto& x : rows)
    for (const std::size_t block : {64U, 512U}) {
      const std::size_t padded = (x.size() + block - 1) / block * block;
      for (const std::size_t stride : {64U, 80U}) {
        std::vector<std::int8_t> q(padded / 64 * stride, 77), want_q(q);
        std::vector<float> s, want_s;
        for (std::size_t k = 0; k < padded; k += block) {
          const std::size_t cols = std::min(block, x.size() - k), to = k / 64 * stride;
          s.push_back(quantize_block_for(GetParam())(&x[k], cols, block, &q[to], stride));
          want_s.push_back(
              quantize_block_for(Isa::kScalar)(&x[k], cols, block, &want_q[to], stride));
        }
        EXPECT_EQ(q, want_q) << x.size();
        EXPECT_TRUE(same_bits(s, want_s)) << x.size();
      }
    }
}

TEST_P(QuantizeRowTest, RoundsToNearestEvenAndPoisonsOnlyItsBlock) {
  std::vector<float> x(128, 0.0F);
  x[0] = 127;
  x[1] = 2.5F;
  x[2] = -3.5F;
  x[3] = 0.5F;
  x[64] = std::numeric_limits<float>::quiet_NaN();
  std::vector<std::int8_t> q(128);
  std::vector<float> s(2);
  for (std::size_t b = 0; b < 2; ++b)
    s[b] = quantize_block_for(GetParam())(&x[64 * b], 64, 64, &q[64 * b], 64);
  EXPECT_EQ(q[0], 127);
  EXPECT_EQ(q[1], 2);
  EXPECT_EQ(q[2], -4);
  EXPECT_EQ(q[3], 0);
  EXPECT_EQ(s[0], 1.0F);
  EXPECT_TRUE(std::isnan(s[1]));
  EXPECT_EQ(q[64], 0);
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, QuantizeRowTest, testing::ValuesIn(available_isas()),
                         [](const auto& test) { return std::string(isa_name(test.param)); });

constexpr WeightFormat kFormats[] = {WeightFormat::kW8r, WeightFormat::kW4r, WeightFormat::kCcq2,
                                     WeightFormat::kCcq25, WeightFormat::kCcq275};

/// A format's name as a test's may be.
std::string case_name(WeightFormat format) {
  std::string name(format_name(format));
  std::ranges::replace(name, '.', '_');
  return name;
}

class IntegerLinearTest : public testing::TestWithParam<std::tuple<Isa, WeightFormat>> {};

struct Shape {
  std::size_t rows, cols;
};

TEST_P(IntegerLinearTest, GivesTheBitsOfTheScalarLevel) {
  const auto [isa, format] = GetParam();
  for (const Shape shape : {Shape{1, 32}, Shape{31, 64}, Shape{33, 128}, Shape{96, 192},
                            Shape{64, 512}, Shape{70, 576}, Shape{40, 588}, Shape{160, 1280}}) {
    const auto w = random_integer_matrix(format, shape.rows, shape.cols, shape.cols);
    for (const std::size_t m : {1U, 2U, 5U, 8U, 9U, 12U, 13U, 16U, 17U, 33U, 70U, 300U}) {
      if (m > 20 && shape.cols > 600) continue;
      const auto x = random_rows(m, shape.cols, m);
      const auto operand = f32_operand(x, m, shape.cols);
      EXPECT_TRUE(same_bits(run(isa, w, operand), run(Isa::kScalar, w, operand)))
          << m << " rows, " << shape.rows << " x " << shape.cols;
    }
  }
}

TEST_P(IntegerLinearTest, GivesTheBitsOfTheScalarLevelForWholeWidths) {
  const auto [isa, format] = GetParam();
  // Activation blocks of 512, 512, 256 and 128; gate and up; a last panel that is not full.
  const auto wide = random_integer_matrix(format, 65, 2560, 1);
  const auto down = random_integer_matrix(format, 64, 1536, 2);
  const auto half = random_integer_matrix(format, 96, 1280, 3);
  const auto gate_up = random_integer_matrix(format, 40, 640, 4, true);
  for (const auto* w : {&wide, &down, &half, &gate_up})
    for (const std::size_t m : {1U, 8U, 9U, 16U, 33U, 70U, 300U}) {
      if (m == 300 && w->cols == 2560) continue;
      const auto x = random_rows(m, w->cols, m);
      const auto operand = f32_operand(x, m, w->cols);
      const std::size_t outputs = w->panels() * 32;
      std::vector<float> y(m * outputs, -1.0F), want = y;
      for (auto [level, out] : {std::pair{isa, &y}, std::pair{Isa::kScalar, &want}}) {
        PackedMatrix plain = *w;
        // As the kernels see it, a matrix of gates and ups is one of twice the rows.
        if (w->gate_up) plain.rows = outputs;
        plain.gate_up = false;
        linear_for(level)(plain, operand, out->data(), outputs, nullptr, 0, plain.panels());
      }
      EXPECT_TRUE(same_bits(y, want)) << m << " rows, " << w->rows << " x " << w->cols;
    }
}

// Every weight and activation at its largest: no sum of a block may leave 32 bits.
TEST_P(IntegerLinearTest, TheLargestSumsAreExact) {
  const auto [isa, format] = GetParam();
  constexpr std::size_t kCols = 512;
  for (const int fill : {0x00, 0xff}) {
    const auto w = random_integer_matrix(format, 32, kCols, 1);
    auto* const panel = const_cast<std::byte*>(w.data);
    if (format == WeightFormat::kW8r) {
      std::memset(panel + 128, fill == 0 ? 0x81 : 0x7f, w.panel_bytes() - 128);
    } else if (format == WeightFormat::kCcq25 || format == WeightFormat::kCcq275) {
      // Multipliers at their largest, levels all 0 or all at their largest.
      const bool wide = format == WeightFormat::kCcq25;
      std::memset(panel + 128, fill, w.panel_bytes() - 128);
      for (std::size_t b = 128; b < w.panel_bytes(); b += wide ? 640 : 704)
        for (std::size_t r = 0; r < 32; ++r) {
          const std::uint16_t tail =
              static_cast<std::uint16_t>(wide ? (fill & 0xe0) << 8 | 0x1fff : (fill & 0xf0) | 15);
          std::memcpy(panel + b + (wide ? ccq25_unit(9, r) : ccq275_unit(21, r)), &tail,
                      wide ? 2 : 1);
        }
    }
    for (const std::size_t m : {1U, 3U, 20U}) {
      const std::vector<float> x(m * kCols, 1.0F);  // all become 127
      const auto y = run(isa, w, f32_operand(x, m, kCols));
      for (std::size_t r = 0; r < m; ++r)
        for (std::size_t n = 0; n < 32; ++n) {
          std::int64_t sum = 0;
          for (std::size_t k = 0; k < kCols; ++k) sum += integer_weight(w, 0, n, k) * 127;
          ASSERT_LT(std::abs(sum), std::int64_t{1} << 31);
          const float s = 1.0F / 127.0F;
          ASSERT_EQ(y[r * 32 + n], static_cast<float>(sum) * s * row_scale(w, 0, n))
              << m << ' ' << n;
        }
    }
  }
}

TEST_P(IntegerLinearTest, AddingEqualsAProductThenAnAddition) {
  const auto [isa, format] = GetParam();
  const ForcedIsa forced(isa);
  ThreadPool pool(2);
  for (const std::size_t outputs : {33U, 96U}) {
    const auto w = random_integer_matrix(format, outputs, 512, outputs);
    for (const std::size_t m : {1U, 3U, 9U, 40U}) {
      const auto x = random_rows(m, w.cols, m);
      std::vector<float> sums(m * outputs), want(m * outputs, 1.25F), got = want;
      linear(w, f32_operand(x, m, w.cols), sums.data(), outputs, nullptr, pool);
      for (std::size_t i = 0; i < want.size(); ++i) want[i] += sums[i];
      linear_add(w, f32_operand(x, m, w.cols), got.data(), outputs, nullptr, pool);
      EXPECT_TRUE(same_bits(got, want)) << m << " rows, " << outputs << " outputs";
    }
  }
}

TEST_P(IntegerLinearTest, ActivatedEqualsAProductThenTheRowKernel) {
  const auto [isa, format] = GetParam();
  const ForcedIsa forced(isa);
  ThreadPool pool(2);
  const auto& rows = elementwise_for(isa);
  for (const std::size_t outputs : {33U, 96U}) {
    const auto w = random_integer_matrix(format, outputs, 512, outputs);
    const std::vector<float> bias(outputs, 0.125F);
    for (const std::size_t m : {1U, 9U, 40U})
      for (const auto activation : {Activation::kQuickGelu, Activation::kGeluErf}) {
        const auto x = random_rows(m, w.cols, m);
        std::vector<float> sums(m * outputs), got(m * outputs), want = got;
        std::vector<Bf16> got_bf16(m * outputs), want_bf16 = got_bf16;
        linear(w, f32_operand(x, m, w.cols), sums.data(), outputs, bias.data(), pool);
        const auto row = activation == Activation::kQuickGelu ? rows.quick_gelu : rows.gelu_erf;
        row(sums.data(), sums.size(), want.data(), want_bf16.data());
        linear_activated(w, f32_operand(x, m, w.cols), bias.data(), activation,
                         {Compute::kF32, got.data(), m, outputs, outputs}, pool);
        linear_activated(w, f32_operand(x, m, w.cols), bias.data(), activation,
                         {Compute::kBf16, got_bf16.data(), m, outputs, outputs}, pool);
        EXPECT_TRUE(same_bits(got, want)) << m << " rows, " << outputs << " outputs";
        EXPECT_EQ(got_bf16, want_bf16) << m << " rows, " << outputs << " outputs";
      }
  }
}

TEST_P(IntegerLinearTest, ARowDoesNotDependOnTheOthers) {
  const auto [isa, format] = GetParam();
  constexpr std::size_t kRows = 37, kCols = 576, kOutputs = 100;
  const auto w = random_integer_matrix(format, kOutputs, kCols, 9);
  const auto x = random_rows(kRows, kCols, 10);
  const auto all = run(isa, w, f32_operand(x, kRows, kCols));
  for (std::size_t m = 0; m < kRows; ++m) {
    const std::vector<float> row(x.begin() + m * kCols, x.begin() + (m + 1) * kCols);
    const auto one = run(isa, w, f32_operand(row, 1, kCols));
    ASSERT_TRUE(std::equal(one.begin(), one.end(), all.begin() + m * kOutputs)) << m;
  }
}

TEST_P(IntegerLinearTest, StreamsDoNotChangeBits) {
  const auto [isa, format] = GetParam();
  const auto w = random_integer_matrix(format, 300, 512, 3);
  const auto x = random_rows(3, 512, 4);
  for (const auto of : {cpu::StreamsOf::kRow, cpu::StreamsOf::kRows}) {
    const auto operand = f32_operand(x, of == cpu::StreamsOf::kRow ? 1 : 3, 512);
    const auto before = cpu::streams(of);
    const auto want = run(isa, w, operand);
    for (const std::size_t panels : {1U, 2U, 4U})
      for (const std::size_t ahead : {0U, 1088U})
        for (const bool into_l2 : {false, true}) {
          cpu::set_streams(of, {panels, ahead, into_l2});
          EXPECT_TRUE(same_bits(run(isa, w, operand), want))
              << panels << ' ' << ahead << ' ' << into_l2;
        }
    cpu::set_streams(of, before);
  }
}

TEST_P(IntegerLinearTest, ANonFiniteValueSpoilsItsRowOnly) {
  const auto [isa, format] = GetParam();
  const auto w = random_integer_matrix(format, 40, 128, 3);
  for (const std::size_t rows : {3U, 20U}) {
    auto x = random_rows(rows, 128, 4);
    const auto clean = run(isa, w, f32_operand(x, rows, 128));
    x[1 * 128 + 70] = std::numeric_limits<float>::infinity();
    const auto y = run(isa, w, f32_operand(x, rows, 128));
    for (std::size_t i = 0; i < y.size(); ++i)
      if (i / 40 == 1)
        EXPECT_TRUE(std::isnan(y[i])) << i;
      else
        EXPECT_EQ(y[i], clean[i]) << i;
  }
}

TEST_P(IntegerLinearTest, IsCloseToTheReference) {
  const auto [isa, format] = GetParam();
  const auto w = random_integer_matrix(format, 50, 1536, 3);
  const auto x = random_rows(6, 1536, 4);
  QuantizedRows quantized;
  ThreadPool pool(1);
  const auto operand =
      quantized.quantize(f32_operand(x, 6, 1536), w.padded_cols(), w.a8_block(), pool);
  std::vector<float> want(6 * 50);
  linear_ref(w, operand, want.data(), 50, nullptr);
  const auto got = run(isa, w, operand);
  double largest = 0;
  for (const float y : want) largest = std::max(largest, std::abs(double{y}));
  // Sums are exact, so only a few f32 roundings of sums of up to `largest` are left.
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 2e-6 * largest) << i;
}

TEST(StreamProbeTest, SetsWhatItChose) {
  const auto row = cpu::streams(cpu::StreamsOf::kRow), rows = cpu::streams(cpu::StreamsOf::kRows);
  const auto chosen = tune_streams();
  const auto expect_set = [](cpu::StreamsOf of, const StreamChoice& choice) {
    EXPECT_GT(choice.gbs, 0.1);
    EXPECT_EQ(cpu::streams(of).panels, choice.panels);
    EXPECT_EQ(cpu::streams(of).ahead, choice.ahead);
    EXPECT_EQ(cpu::streams(of).into_l2, choice.into_l2);
  };
  expect_set(cpu::StreamsOf::kRow, chosen.row);
  expect_set(cpu::StreamsOf::kRows, chosen.rows);
  cpu::set_streams(cpu::StreamsOf::kRow, row);
  cpu::set_streams(cpu::StreamsOf::kRows, rows);
}

/// What goes through the pool, at the level in use.
class IntegerProductTest : public testing::TestWithParam<WeightFormat> {};

TEST_P(IntegerProductTest, ThreadsAndFormsOfRowsDoNotChangeBits) {
  const auto format = GetParam();
  constexpr std::size_t kRows = 290, kCols = 640, kOutputs = 130;
  const auto w = random_integer_matrix(format, kOutputs, kCols, 5);
  const auto values = random_rows(kRows, kCols, 6);
  std::vector<Bf16> bf16(values.size());
  std::vector<float> x(values.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    bf16[i] = f32_to_bf16(values[i]);
    x[i] = bf16_to_f32(bf16[i]);
  }
  const auto want = run(active_isa(), w, f32_operand(x, kRows, kCols));
  for (const unsigned threads : {1U, 3U}) {
    ThreadPool pool(threads);
    QuantizedRows quantized;
    const Operand rounded{Compute::kBf16, bf16.data(), kRows, kCols, kCols};
    for (const auto& operand : {f32_operand(x, kRows, kCols), rounded,
                                quantized.quantize(rounded, w.padded_cols(), w.a8_block(), pool)}) {
      std::vector<float> y(kRows * kOutputs);
      linear(w, operand, y.data(), kOutputs, nullptr, pool);
      EXPECT_TRUE(same_bits(y, want)) << threads << " threads";
    }
  }
}

TEST_P(IntegerProductTest, AnFfnIsItsTwoProducts) {
  const auto format = GetParam();
  constexpr std::size_t kHidden = 192, kWidth = 72;
  const auto gate_up = random_integer_matrix(format, kWidth, kHidden, 5, true);
  const auto down = random_integer_matrix(format, kHidden, kWidth, 6);
  ThreadPool pool(2);
  for (const std::size_t rows : {1U, 7U, 40U}) {
    const auto x = random_rows(rows, kHidden, rows);
    std::vector<float> hidden(rows * 128), want(rows * kHidden), got(rows * kHidden);
    linear_gate_up(gate_up, f32_operand(x, rows, kHidden),
                   {Compute::kF32, hidden.data(), rows, 128, 128}, pool);
    linear(down, {Compute::kF32, hidden.data(), rows, kWidth, 128}, want.data(), kHidden, nullptr,
           pool);
    std::vector<Bf16> bf16(x.size());
    std::vector<void*> out(rows);
    for (std::size_t r = 0; r < rows; ++r) out[r] = got.data() + r * kHidden;
    const FfnTask task{&gate_up, &down, {}, {}, out.data(), Compute::kF32};
    FfnScratch scratch;
    QuantizedRows quantized;
    ffn({&task, 1},
        quantized.quantize(f32_operand(x, rows, kHidden), gate_up.padded_cols(), gate_up.a8_block(),
                           pool),
        scratch, pool);
    EXPECT_TRUE(same_bits(got, want)) << rows;
  }
}

TEST_P(IntegerProductTest, ALargeBatchOfExpertsIsItsProducts) {
  const auto format = GetParam();
  // Enough rows that workers take row blocks through both products; one task of two blocks, one
  // that takes every row, a width that is not whole panels and more than one wide part.
  constexpr std::size_t kHidden = 192, kWidth = 600, kRows = 300;
  const auto x = random_rows(kRows, kHidden, 1);
  struct Expert {
    PackedMatrix gate_up, down;
    std::vector<std::uint32_t> rows;
    std::vector<float> weights, got;
    std::vector<Bf16> leaves;
    std::vector<void*> out;
  };
  std::vector<Expert> experts;
  for (std::size_t e = 0; e < 7; ++e) {
    experts.push_back({random_integer_matrix(format, kWidth, kHidden, 10 + e, true),
                       random_integer_matrix(format, kHidden, kWidth, 30 + e),
                       {},
                       {},
                       {},
                       {},
                       {}});
    auto& expert = experts.back();
    const std::size_t count = e == 0 ? 0 : e == 1 ? 290 : 3 * e * e + 1;
    for (std::size_t i = 0; i < count; ++i) {
      expert.rows.push_back(static_cast<std::uint32_t>((i * 7 + e) % kRows));
      // Some leaves are denormal, some are no numbers.
      expert.weights.push_back(i % 17 == 5    ? 1e-39F
                               : i % 19 == 11 ? std::numeric_limits<float>::quiet_NaN()
                                              : 0.1F + 0.01F * static_cast<float>(i));
    }
    expert.got.assign((e == 0 ? kRows : count) * kHidden, -1.0F);
    expert.leaves.resize(expert.got.size());
    for (std::size_t i = 0; i < expert.got.size(); i += kHidden)
      expert.out.push_back(e == 0 ? static_cast<void*>(expert.got.data() + i)
                                  : expert.leaves.data() + i);
  }
  std::vector<FfnTask> tasks;
  for (auto& e : experts)
    tasks.push_back({&e.gate_up, &e.down, e.rows, e.weights, e.out.data(),
                     tasks.empty() ? Compute::kF32 : Compute::kBf16});
  for (const unsigned threads : {1U, 2U}) {
    ThreadPool pool(threads);
    QuantizedRows quantized;
    const auto& first = experts[0].gate_up;
    const auto rows = f32_operand(x, kRows, kHidden);
    const auto int8 = quantized.quantize(rows, first.padded_cols(), first.a8_block(), pool);
    for (const auto& operand : {rows, int8}) {
      for (auto& e : experts) {
        std::fill(e.got.begin(), e.got.end(), -1.0F);
        std::fill(e.leaves.begin(), e.leaves.end(), Bf16{0xffff});
      }
      FfnScratch scratch;
      ffn(tasks, operand, scratch, pool);
      for (std::size_t e = 0; e < experts.size(); ++e) {
        auto& expert = experts[e];
        const std::size_t count = expert.got.size() / kHidden;
        if (e > 0)
          widen(Compute::kBf16, expert.leaves.data(), expert.got.size(), expert.got.data());
        std::vector<float> values(count * kHidden), hidden(count * 640), want(count * kHidden);
        for (std::size_t i = 0; i < count; ++i) {
          const std::size_t r = e == 0 ? i : expert.rows[i];
          std::copy_n(x.begin() + static_cast<std::ptrdiff_t>(r * kHidden), kHidden,
                      values.begin() + static_cast<std::ptrdiff_t>(i * kHidden));
        }
        linear_gate_up(expert.gate_up, f32_operand(values, count, kHidden),
                       {Compute::kF32, hidden.data(), count, 640, 640}, pool);
        linear(expert.down, {Compute::kF32, hidden.data(), count, kWidth, 640}, want.data(),
               kHidden, nullptr, pool);
        if (e > 0)
          for (std::size_t i = 0; i < want.size(); ++i)
            want[i] = bf16_to_f32(f32_to_bf16(want[i] * expert.weights[i / kHidden]));
        EXPECT_TRUE(same_bits(expert.got, want)) << "expert " << e << ", " << threads << " threads";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, IntegerLinearTest,
                         testing::Combine(testing::ValuesIn(available_isas()),
                                          testing::ValuesIn(kFormats)),
                         [](const auto& test) {
                           return std::string(isa_name(std::get<0>(test.param))) + "_" +
                                  case_name(std::get<1>(test.param));
                         });

INSTANTIATE_TEST_SUITE_P(Formats, IntegerProductTest, testing::ValuesIn(kFormats),
                         [](const auto& test) { return case_name(test.param); });

}  // namespace
}  // namespace moesaic
