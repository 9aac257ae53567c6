#include "common/quantize/panel_writer.hpp"

#include <cstring>

#include "common/kernels/weight_format.hpp"

namespace moesaic {
namespace {

/// Byte of four k of a row among lines of [2 halves][16 rows][4].
std::size_t quad_offset(std::size_t row, std::size_t quad) {
  return quad * 128 + row / 16 * 64 + row % 16 * 4;
}

}  // namespace

void store_w8r(const std::int8_t* w8, float scale, std::size_t padded, std::size_t row,
               std::byte* panel) {
  std::memcpy(panel + 4 * row, &scale, 4);
  std::byte* values = panel + panel_head(WeightFormat::kW8r);
  for (std::size_t q = 0; q < padded / 4; ++q)
    std::memcpy(values + quad_offset(row, q), w8 + 4 * q, 4);
}

void store_w4r(const quantize_detail::W4rRow& encoded, std::size_t padded, std::size_t row,
               std::byte* panel) {
  std::memcpy(panel + 4 * row, &encoded.scale, 4);
  std::byte* block = panel + panel_head(WeightFormat::kW4r);
  for (std::size_t b = 0; b < padded / 64; ++b, block += 1088) {
    std::uint16_t mults = 0;
    for (std::size_t j = 0; j < 4; ++j)
      mults = static_cast<std::uint16_t>(mults | encoded.mults[4 * b + j] << (4 * j));
    std::memcpy(block + 2 * row, &mults, 2);
    for (std::size_t octet = 0; octet < 8; ++octet) {
      std::uint32_t quads[2];
      std::memcpy(quads, encoded.codes + 64 * b + 8 * octet, 8);
      const std::uint32_t both = quads[0] | quads[1] << 4;
      std::memcpy(block + 64 + quad_offset(row, octet), &both, 4);
    }
  }
}

}  // namespace moesaic
