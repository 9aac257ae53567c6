#include "common/quantize/panel_rows.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "common/kernels/packed_matrix.hpp"
#include "common/quantize/row_encoder.hpp"
#include "common/tensor/bf16.hpp"

namespace moesaic {
namespace {

constexpr float kLeastRow = 0x1p-110F;

}  // namespace

float times_power(float value, int exponent) {
  const auto power = std::bit_cast<double>(static_cast<std::uint64_t>(1023 + exponent) << 52);
  return static_cast<float>(double{value} * power);
}

bool PanelRows::read(std::size_t panel, std::size_t row, std::size_t padded, float* out) const {
  const MatrixView& from = up_ != nullptr && row >= 16 ? *up_ : w_;
  const std::size_t index = source_row(panel, row);
  if (index >= from.rows) return false;
  const auto size = static_cast<std::ptrdiff_t>(dtype_bytes(from.dtype));
  const auto* at = from.data + static_cast<std::ptrdiff_t>(index) * from.row_stride * size;
  if (from.col_stride == 1 && (from.dtype == DType::kBf16 || from.dtype == DType::kU16)) {
    for (std::size_t c = 0; c < from.cols; ++c) {
      Bf16 value;
      std::memcpy(&value, at + c * sizeof value, sizeof value);
      out[c] = bf16_to_f32(value);
    }
  } else {
    for (std::size_t c = 0; c < from.cols; ++c) out[c] = element_f32(from, index, c);
  }
  std::fill(out + from.cols, out + padded, 0.0F);
  return true;
}

Error PanelRows::bad_value(std::size_t panel, std::size_t row, const float* x) const {
  std::size_t col = 0;
  while (std::isfinite(x[col])) ++col;
  return {Errc::kInvalidArgument,
          std::string(name(row)) + "row " + std::to_string(source_row(panel, row)) + ", column " +
              std::to_string(col) + ": " + std::to_string(x[col]) + " is not a weight"};
}

std::optional<Error> PanelRows::read_half(std::size_t panel, std::size_t half, std::size_t padded,
                                          HalfPanel& out, std::size_t& bad) const {
  out.x = LaneArray(padded);
  std::vector<float> row(padded);
  for (std::size_t i = 0; i < kLanes; ++i) {
    const std::size_t r = half * kLanes + i;
    out.exponent[i] = 0;
    out.exists[i] = read(panel, r, padded, row.data());
    if (!out.exists[i]) continue;
    const float most = quantize_detail::largest_magnitude(row.data(), padded);
    if (!std::isfinite(most)) {
      bad = r;
      return bad_value(panel, r, row.data());
    }
    if (most < kLeastRow) continue;
    out.exponent[i] = static_cast<int>(std::bit_cast<std::uint32_t>(most) >> 23) - 127;
    for (std::size_t k = 0; k < padded; ++k) out.x[k][i] = times_power(row[k], -out.exponent[i]);
  }
  return std::nullopt;
}

}  // namespace moesaic
