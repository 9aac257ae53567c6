#pragma once

#include <cstddef>
#include <cstdint>

namespace moesaic::quantize_detail {

/// Codes of one row of w4r: 16 weights share a multiplier, all of them the scale.
struct W4rRow {
  float scale = 0;
  std::uint8_t* codes = nullptr;  ///< [K] 0..15
  std::uint8_t* mults = nullptr;  ///< [K / 16] 0..15
};

/// Scale so that the largest magnitude is multiplier 15 times code 7; multipliers that just cover
/// their groups.
/// @param x [k], k a multiple of 16
void encode_w4r_absmax(const float* x, std::size_t k, W4rRow& row);

/// Scale = absmax / 127, nearest.
void encode_w8r(const float* x, std::size_t k, float& scale, std::int8_t* w8);

/// Largest magnitude; NaN or infinity if there is one.
float largest_magnitude(const float* x, std::size_t k);

}  // namespace moesaic::quantize_detail
