#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace moesaic {

/// How the weights of a matrix are stored. In all of them N stands in panels of 32 output rows, K
/// innermost; N is padded with zero rows to 32, K with zero columns to 64 (kCcq2: 128). Lines are
/// 64 bytes and aligned; row r of a panel is r % 16 of half r / 16.
///   kF32   panel: [K][32 rows]
///   kBf16  panel: [K/32][2 halves][16 pairs of k][16 rows][2]
///   kW8r   panel: f32 scale[32]; [K/4][2 halves][16 rows][4] int8, -127..127; weight = w8 * scale
///   kW4r   panel: f32 scale[32]; K/64 blocks of 1088 B:
///            u16 mult[32]: bits 4j..4j+3 for k = 64b + 16j .. + 15
///            8 octets of k x [2 halves][16 rows][4]: byte 4r + j: low nibble = code of k0 + j,
///            high nibble = code of k0 + 4 + j
///          w8 = (code - 8) * mult in [-120, 105]; weight = w8 * scale; a group of zeros has mult 0
///   kCcq2  panel: f32 super[32], f32 code_scale[32], f32 code_zp[32]; K/128 blocks of 1088 B:
///            u8 l[2 groups of 64 k][32 rows], 0..15
///            32 words of 4 k x [32 rows] u8: byte b of k = 128 blk + 4 w ..
///          c = floor(b * code_scale + code_zp + 0.5) in f32, never fused;
///          level_j = c >> {9, 6, 3, 0}[j] & 63; weight = (level_j - 32) * l * super
///   kCcq25  panel: f32 super[32]; K/64 blocks of 640 B: u32 [5 words][32 rows], the ten 16-bit
///           units of 64 k in order; weight = (level - 4) * l * super, l 0..8191
///   kCcq275 panel: f32 super[32]; K/64 blocks of 704 B: u32 [5 words][32 rows], the first twenty
///           bytes of 64 k in order, then u16 [32 rows], the last two;
///           weight = (level - 8) * l * super, l 0..15
///           (ccq_layout.hpp has the place of each level; units as in common/quantize/ccq.hpp)
/// Integers of weights, all but the last factor, are exact, and so are their sums over a block of
/// int8 activations: of kCcq25 at most 512 * 4 * 8191 * 127 < 2^31.
enum class WeightFormat : std::uint8_t { kF32, kBf16, kW8r, kW4r, kCcq2, kCcq25, kCcq275 };

/// "f32", "bf16", "w8", "w4", "ccq2", "ccq2.5", "ccq2.75".
std::string_view format_name(WeightFormat format);
std::optional<WeightFormat> parse_format(std::string_view name);

/// Names of the formats that models are packed in.
inline constexpr std::array<std::string_view, 6> kPackFormatNames = {"bf16",    "w8",     "w4",
                                                                     "ccq2.75", "ccq2.5", "ccq2"};

/// True if products with it are exact integer sums over int8 activations.
constexpr bool is_integer(WeightFormat format) { return format >= WeightFormat::kW8r; }

constexpr std::size_t padded_cols(WeightFormat format, std::size_t cols) {
  const std::size_t to = format == WeightFormat::kCcq2 ? 128 : 64;
  return (cols + to - 1) / to * to;
}

/// Bytes before the first block of k of a panel.
constexpr std::size_t panel_head(WeightFormat format) {
  return format == WeightFormat::kCcq2 ? 384 : is_integer(format) ? 128 : 0;
}

/// Bytes of 128 columns of a panel.
constexpr std::size_t bytes_per_128(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return std::size_t{128} * 32 * 4;
    case WeightFormat::kBf16:
      return std::size_t{128} * 32 * 2;
    case WeightFormat::kW8r:
      return std::size_t{128} * 32;
    case WeightFormat::kW4r:
      return std::size_t{2} * 1088;
    case WeightFormat::kCcq2:
      return 1088;
    case WeightFormat::kCcq25:
      return std::size_t{2} * 640;
    case WeightFormat::kCcq275:
      return std::size_t{2} * 704;
  }
  return 0;
}

constexpr std::size_t panel_bytes(WeightFormat format, std::size_t padded) {
  return panel_head(format) + padded / 64 * bytes_per_128(format) / 2;
}

/// Columns of activations that share a scale: the largest of 512, 256, 128, 64 that divides the
/// padded K.
constexpr std::size_t a8_block(std::size_t padded) {
  for (const std::size_t block : {512U, 256U, 128U})
    if (padded % block == 0) return block;
  return 64;
}

}  // namespace moesaic
