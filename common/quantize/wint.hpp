#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/result.hpp"
#include "common/kernels/packed_matrix.hpp"

// WINT8 and WINT4: one scale an output feature, weight = q * scale. Source: quantization.md 9.1.
namespace moesaic {

/// Such a matrix as its tensors stand in files. Not owning.
struct WintView {
  int bits = 8;       ///< 8 or 4
  std::size_t k = 0;  ///< input features; even where bits are 4
  std::size_t n = 0;  ///< output features
  /// 8: int8 [k][n], -127..127. 4: [k/2][n], the even k in the low nibble, two's complement -7..7.
  std::span<const std::uint8_t> quant_weight;
  std::span<const float> weight_scale;  ///< [n]

  int at(std::size_t row, std::size_t column) const {
    if (bits == 8) return static_cast<std::int8_t>(quant_weight[row * n + column]);
    const int both = quant_weight[row / 2 * n + column];
    const int nibble = row % 2 == 0 ? both & 15 : both >> 4;
    return nibble < 8 ? nibble : nibble - 16;
  }
};

/// Sizes and values of tensors from outside.
/// @errors kShapeMismatch: a size, with its name; kCorrupt: a scale that is negative or not finite,
///         with the column; kUnsupported: -128 or -8, which the format does not have: what some
///         kernels want (biased, permuted), and no file format
[[nodiscard]] Result<void> check(const WintView& w);

/// float(q) * scale as out[columns][k], columns [first, first + count).
/// @pre check(w); out.size() == count * k
void decode(const WintView& w, std::size_t first, std::size_t count, std::span<float> out);

/// Panels of kW8r or kW4r with the same integers (multipliers of kW4r are 1) and scales.
/// @param gate_up the columns are a fused up_gate_proj: the first half is gate
/// @errors those of `check`; kShapeMismatch: gate_up with an odd n
[[nodiscard]] Result<PackedMatrix> pack_wint(const WintView& w, bool gate_up);

}  // namespace moesaic
