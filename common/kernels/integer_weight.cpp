#include "common/kernels/integer_weight.hpp"

#include <cassert>
#include <cmath>
#include <cstring>

#include "common/kernels/ccq_layout.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kBlockBytes = 1088;

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

/// Byte of (row, k) among lines of [2 halves][16 rows][4], four k a pair of lines.
std::size_t quad_offset(std::size_t row, std::size_t k) {
  return k / 4 * 128 + row / 16 * 64 + row % 16 * 4 + k % 4;
}

std::int32_t w4r(const std::byte* panel, std::size_t row, std::size_t k) {
  const std::byte* block = panel + panel_head(WeightFormat::kW4r) + k / 64 * kBlockBytes;
  const std::size_t kk = k % 64;
  const int mult = load<std::uint16_t>(block + 2 * row) >> (kk / 16 * 4) & 15;
  const std::byte* line = block + 64 + kk / 8 * 128 + row / 16 * 64;
  const auto codes = load<std::uint8_t>(line + row % 16 * 4 + kk % 4);
  return ((kk & 4U ? codes >> 4 : codes & 15) - 8) * mult;
}

std::int32_t ccq2(const std::byte* panel, std::size_t row, std::size_t k) {
  const std::byte* block = panel + panel_head(WeightFormat::kCcq2) + k / 128 * kBlockBytes;
  const std::size_t kk = k % 128;
  const int l = load<std::uint8_t>(block + kk / 64 * 32 + row);
  const auto byte = load<std::uint8_t>(block + 64 + kk / 4 * 32 + row);
  const auto code =
      ccq2_code(byte, load<float>(panel + 128 + 4 * row), load<float>(panel + 256 + 4 * row));
  const int level = code >> (9 - 3 * (kk % 4)) & 63;
  return (level - 32) * l;
}

std::int32_t ccq25(const std::byte* panel, std::size_t row, std::size_t k) {
  const std::byte* block = panel + panel_head(WeightFormat::kCcq25) + k / 64 * kCcq25BlockBytes;
  const auto word = [&](int i) { return load<std::uint32_t>(block + 128 * i + 4 * row); };
  const LevelPlace place = ccq25_place(k % 64);
  const auto level = static_cast<std::int32_t>(word(place.word) >> place.bit & 7);
  return (level - 4) * static_cast<std::int32_t>(word(4) >> 16 & 0x1fff);
}

std::int32_t ccq275(const std::byte* panel, std::size_t row, std::size_t k) {
  const std::byte* block = panel + panel_head(WeightFormat::kCcq275) + k / 64 * kCcq275BlockBytes;
  const auto word = [&](int i) {
    return i < 5 ? load<std::uint32_t>(block + 128 * i + 4 * row)
                 : load<std::uint16_t>(block + 640 + 2 * row);
  };
  const LevelPlace place = ccq275_place(k % 64);
  const auto level = static_cast<std::int32_t>(word(place.word) >> place.bit & 15);
  return (level - 8) * static_cast<std::int32_t>(word(5) >> 8 & 15);
}

}  // namespace

std::int32_t ccq2_code(std::uint8_t byte, float code_scale, float code_zp) {
  const float product = static_cast<float>(byte) * code_scale;
  const float sum = product + code_zp;
  return static_cast<std::int32_t>(std::floor(sum + 0.5F));
}

std::int32_t integer_weight(const PackedMatrix& w, std::size_t panel, std::size_t row,
                            std::size_t k) {
  assert(is_integer(w.format) && panel < w.panels() && row < 32 && k < w.padded_cols());
  const std::byte* p = w.data + panel * w.panel_bytes();
  switch (w.format) {
    case WeightFormat::kW8r:
      return load<std::int8_t>(p + panel_head(w.format) + quad_offset(row, k));
    case WeightFormat::kW4r:
      return w4r(p, row, k);
    case WeightFormat::kCcq25:
      return ccq25(p, row, k);
    case WeightFormat::kCcq275:
      return ccq275(p, row, k);
    default:
      return ccq2(p, row, k);
  }
}

float row_scale(const PackedMatrix& w, std::size_t panel, std::size_t row) {
  return load<float>(w.data + panel * w.panel_bytes() + 4 * row);
}

}  // namespace moesaic
