#include "common/kernels/packed_matrix.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#include "common/tensor/bf16.hpp"

namespace moesaic {
namespace {

/// A value that names its place: every (row, col) of a test matrix differs and is exact in bf16.
Bf16 tag(std::size_t row, std::size_t col) {
  return static_cast<Bf16>(0x3000 + (row * 131 + col * 7) % 0x0fff);
}

Bf16 bf16_at(const PackedMatrix& w, std::size_t byte) {
  Bf16 x;
  std::memcpy(&x, w.data + byte, sizeof x);
  return x;
}
float f32_at(const PackedMatrix& w, std::size_t byte) {
  float x;
  std::memcpy(&x, w.data + byte, sizeof x);
  return x;
}

struct Shape {
  std::size_t rows, cols;
};

/// A bf16 matrix stored row by row or column by column, with a border that must not be read into
/// the pack.
struct Stored {
  std::vector<Bf16> memory;
  MatrixView view;

  Stored(Shape shape, bool transposed, std::size_t row_base = 0) {
    const std::size_t major = transposed ? shape.cols : shape.rows;
    const std::size_t minor = (transposed ? shape.rows : shape.cols) + 3;
    memory.assign(major * minor, Bf16{0x7fc0});
    for (std::size_t r = 0; r < shape.rows; ++r)
      for (std::size_t c = 0; c < shape.cols; ++c)
        memory[transposed ? c * minor + r : r * minor + c] = tag(row_base + r, c);
    const auto stride = static_cast<std::ptrdiff_t>(minor);
    view = {reinterpret_cast<const std::byte*>(memory.data()),
            DType::kBf16,
            shape.rows,
            shape.cols,
            transposed ? 1 : stride,
            transposed ? stride : 1};
  }
};

/// Byte of (row, k) by the layout's text: [K/32][2 halves][16 pairs of k][16 rows][2].
std::size_t bf16_byte(const PackedMatrix& w, std::size_t row, std::size_t k) {
  return row / 32 * w.panel_bytes() + k / 32 * 2048 + row % 32 / 16 * 1024 + k % 32 / 2 * 64 +
         row % 16 * 4 + k % 2 * 2;
}

class PackedMatrixTest : public testing::TestWithParam<std::tuple<std::size_t, std::size_t, bool>> {
};

TEST_P(PackedMatrixTest, EveryElementLiesAtItsPlaceAndPaddingIsZero) {
  const auto [rows, cols, transposed] = GetParam();
  const Stored source({rows, cols}, transposed);
  const auto w = pack_matrix(source.view, Compute::kBf16);
  ASSERT_EQ(w.format, WeightFormat::kBf16);
  ASSERT_EQ(w.bytes(), (rows + 31) / 32 * 32 * ((cols + 63) / 64 * 64) * 2);
  for (std::size_t r = 0; r < w.panels() * 32; ++r)
    for (std::size_t k = 0; k < w.padded_cols(); ++k) {
      const Bf16 want = r < rows && k < cols ? tag(r, k) : Bf16{0};
      ASSERT_EQ(bf16_at(w, bf16_byte(w, r, k)), want) << "row " << r << " k " << k;
    }
}

TEST_P(PackedMatrixTest, GateAndUpInterleaveBySixteenRows) {
  const auto [rows, cols, transposed] = GetParam();
  const Stored gate({rows, cols}, transposed);
  const Stored up({rows, cols}, transposed, /*row_base=*/1000);
  const auto w = pack_gate_up(gate.view, up.view, Compute::kF32);
  ASSERT_EQ(w.format, WeightFormat::kBf16) << "bf16 sources stay bf16";
  ASSERT_EQ(w.panels(), (rows + 15) / 16);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t k = 0; k < cols; ++k) {
      const std::size_t place = r / 16 * 32 + r % 16;
      ASSERT_EQ(bf16_at(w, bf16_byte(w, place, k)), tag(r, k));
      ASSERT_EQ(bf16_at(w, bf16_byte(w, place + 16, k)), tag(1000 + r, k));
    }
}

TEST_P(PackedMatrixTest, UnpackedRowsAreTheSource) {
  const auto [rows, cols, transposed] = GetParam();
  const Stored source({rows, cols}, transposed);
  const auto w = pack_matrix(source.view, Compute::kBf16);
  std::vector<float> row(cols);
  for (std::size_t r = 0; r < rows; ++r) {
    unpack_row(w, r, row.data());
    for (std::size_t k = 0; k < cols; ++k) ASSERT_EQ(row[k], bf16_to_f32(tag(r, k)));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PackedMatrixTest,
                         testing::Combine(testing::Values(1, 15, 16, 31, 32, 33, 96),
                                          testing::Values(1, 31, 32, 64, 75, 192),
                                          testing::Bool()));

TEST(PackedMatrixLayoutTest, GateAndUpOfTwoTypesKeepWhatTheWiderOneHolds) {
  constexpr std::size_t kRows = 17, kCols = 40;
  const Stored half({kRows, kCols}, false);
  std::vector<float> values(kRows * kCols);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.1F + static_cast<float>(i);
  const MatrixView f32{
      reinterpret_cast<const std::byte*>(values.data()), DType::kF32, kRows, kCols, kCols, 1};
  for (const bool gate_is_f32 : {true, false}) {
    const auto& gate = gate_is_f32 ? f32 : half.view;
    const auto& up = gate_is_f32 ? half.view : f32;
    const auto exact = pack_gate_up(gate, up, Compute::kF32);
    ASSERT_EQ(exact.format, WeightFormat::kF32);
    const auto rounded = pack_gate_up(gate, up, Compute::kBf16);
    ASSERT_EQ(rounded.format, WeightFormat::kBf16);
    for (std::size_t r = 0; r < kRows; ++r)
      for (std::size_t k = 0; k < kCols; ++k)
        for (std::size_t h = 0; h < 2; ++h) {
          const float want = element_f32(h == 0 ? gate : up, r, k);
          const std::size_t place = r / 16 * 32 + h * 16 + r % 16;
          EXPECT_EQ(f32_at(exact, place / 32 * exact.panel_bytes() + (k * 32 + place % 32) * 4),
                    want);
          EXPECT_EQ(bf16_at(rounded, bf16_byte(rounded, place, k)), f32_to_bf16(want));
        }
  }
}

TEST(PackedMatrixLayoutTest, F32PanelsAreKByThirtyTwoRows) {
  const std::size_t rows = 35, cols = 5;
  std::vector<float> values(rows * cols);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.1f + static_cast<float>(i);
  const MatrixView view{reinterpret_cast<const std::byte*>(values.data()),
                        DType::kF32,
                        rows,
                        cols,
                        static_cast<std::ptrdiff_t>(cols),
                        1};
  const auto w = pack_matrix(view, Compute::kF32);
  ASSERT_EQ(w.format, WeightFormat::kF32);
  ASSERT_EQ(w.bytes(), 2u * 64 * 32 * 4);
  for (std::size_t r = 0; r < 64; ++r)
    for (std::size_t k = 0; k < 64; ++k) {
      const float want = r < rows && k < cols ? values[r * cols + k] : 0.0f;
      ASSERT_EQ(f32_at(w, r / 32 * w.panel_bytes() + (k * 32 + r % 32) * 4), want);
    }
  std::vector<float> row(cols);
  unpack_row(w, 34, row.data());
  EXPECT_EQ(row[4], values[34 * cols + 4]);
}

TEST(PackedMatrixLayoutTest, OtherTypesAreRoundedOnceForBf16) {
  // 1 + 2^-8 is a tie (to even: 1), 1 + 3 * 2^-8 a tie (to even: 1 + 2^-6).
  const std::vector<float> values = {1.0f + 0x1p-8f, 1.0f + 0x1.8p-7f};
  const MatrixView view{reinterpret_cast<const std::byte*>(values.data()), DType::kF32, 1, 2, 2, 1};
  const auto w = pack_matrix(view, Compute::kBf16);
  std::vector<float> row(2);
  unpack_row(w, 0, row.data());
  EXPECT_EQ(row[0], 1.0f);
  EXPECT_EQ(row[1], 1.0f + 0x1p-6f);
}

TEST(ElementF32Test, ReadsEveryTypeExactly) {
  const auto read = [](DType type, const auto& value) {
    return element_f32({reinterpret_cast<const std::byte*>(&value), type, 1, 1, 1, 1}, 0, 0);
  };
  EXPECT_EQ(read(DType::kF32, 0.3f), 0.3f);
  EXPECT_EQ(read(DType::kBf16, Bf16{0x3fc0}), 1.5f);
  EXPECT_EQ(read(DType::kU16, Bf16{0xbfc0}), -1.5f);
  EXPECT_EQ(read(DType::kF16, std::uint16_t{0x3555}), 0x1.554p-2f);
  EXPECT_EQ(read(DType::kF16, std::uint16_t{0x8001}), -0x1p-24f);
  EXPECT_EQ(read(DType::kF16, std::uint16_t{0x7bff}), 65504.0f);
  EXPECT_EQ(read(DType::kF16, std::uint16_t{0xfc00}), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(read(DType::kF16, std::uint16_t{0x7e00})));
  EXPECT_TRUE(std::signbit(read(DType::kF16, std::uint16_t{0x8000})));
  EXPECT_EQ(read(DType::kI32, std::int32_t{-7}), -7.0f);
  EXPECT_EQ(read(DType::kI64, std::int64_t{1} << 40), 0x1p40f);
  EXPECT_EQ(read(DType::kU8, std::uint8_t{200}), 200.0f);
  EXPECT_EQ(read(DType::kI8, std::int8_t{-56}), -56.0f);
}

}  // namespace
}  // namespace moesaic
