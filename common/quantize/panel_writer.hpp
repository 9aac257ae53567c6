#pragma once

#include <cstddef>
#include <cstdint>

#include "common/quantize/row_encoder.hpp"

namespace moesaic {

/// Writes the integers of one row of a panel where kW8r has them; the scale, too.
/// @param w8 [padded], a multiple of 64
void store_w8r(const std::int8_t* w8, float scale, std::size_t padded, std::size_t row,
               std::byte* panel);

/// Codes, multipliers and scale of one row of a kW4r panel.
void store_w4r(const quantize_detail::W4rRow& encoded, std::size_t padded, std::size_t row,
               std::byte* panel);

}  // namespace moesaic
