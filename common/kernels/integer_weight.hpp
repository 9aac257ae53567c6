#pragma once

#include <cstddef>
#include <cstdint>

#include "common/kernels/packed_matrix.hpp"

namespace moesaic {

/// The exact integer of one weight of an integer format, written plainly: what every kernel must
/// agree with. |integer| <= 127, of kCcq2 <= 480, of kCcq25 <= 32764.
/// @param row of the panel, 0..31   @param k < padded K
std::int32_t integer_weight(const PackedMatrix& w, std::size_t panel, std::size_t row,
                            std::size_t k);

/// weight = integer * scale.
float row_scale(const PackedMatrix& w, std::size_t panel, std::size_t row);

/// Code of a CCQ-2 byte under a column's constants: floor(b * code_scale + code_zp + 0.5) in f32,
/// never fused. Bits above 14 have no effect on levels.
std::int32_t ccq2_code(std::uint8_t byte, float code_scale, float code_zp);

}  // namespace moesaic
