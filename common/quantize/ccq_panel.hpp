#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/kernels/ccq_layout.hpp"
#include "common/kernels/weight_format.hpp"
#include "common/quantize/ccq.hpp"

namespace moesaic {

/// Column of a stored [K, n] that a row of a panel holds; n or more: padding. Of a fused
/// up_gate_proj, gate columns are the first half.
inline std::size_t stored_column(std::size_t n, bool gate_up, std::size_t panel, std::size_t row) {
  if (!gate_up) return panel * 32 + row;
  const std::size_t r = panel * 16 + row % 16;
  return r >= n / 2 ? n : row / 16 * (n / 2) + r;
}

/// Where things stand in a panel of kCcq2 (weight_format.hpp). Not owning.
template <class Byte>
class BasicCcq2Panel {
 public:
  explicit BasicCcq2Panel(Byte* data) : data_(data) {}

  void set_head(std::size_t row, float super, float code_scale, float code_zp) const {
    const float values[3] = {super, code_scale, code_zp};
    for (std::size_t i = 0; i < 3; ++i) std::memcpy(data_ + 128 * i + 4 * row, values + i, 4);
  }
  void set_head(std::size_t row, float super, CodePair pair) const {
    set_head(row, super, static_cast<float>(pair.scale), static_cast<float>(pair.zero));
  }
  /// 0: super, 1: code_scale, 2: code_zp.
  float head(std::size_t which, std::size_t row) const {
    float value;
    std::memcpy(&value, data_ + 128 * which + 4 * row, 4);
    return value;
  }
  /// Local scale of a group of 64 k.
  auto& local(std::size_t group, std::size_t row) const {
    return at(block(group / 2) + group % 2 * 32 + row);
  }
  /// Byte of k = 4 word .. 4 word + 3.
  auto& word(std::size_t word, std::size_t row) const {
    return at(block(word / 32) + 64 + word % 32 * 32 + row);
  }

 private:
  static std::size_t block(std::size_t index) {
    return panel_head(WeightFormat::kCcq2) + index * bytes_per_128(WeightFormat::kCcq2);
  }
  auto& at(std::size_t offset) const {
    using Unit = std::conditional_t<std::is_const_v<Byte>, const std::uint8_t, std::uint8_t>;
    return *reinterpret_cast<Unit*>(data_ + offset);
  }

  Byte* data_;
};
using Ccq2Panel = BasicCcq2Panel<std::byte>;
using ConstCcq2Panel = BasicCcq2Panel<const std::byte>;

/// How units of a file (Word) stand in the panels of their format.
template <class Word>
struct CcqUnits;
template <>
struct CcqUnits<std::uint16_t> {
  static constexpr WeightFormat kFormat = WeightFormat::kCcq25;
  static constexpr std::size_t kOfGroup = 10;
  static constexpr std::size_t kBlockBytes = kCcq25BlockBytes;
  static constexpr std::size_t at(std::size_t unit, std::size_t row) {
    return ccq25_unit(unit, row);
  }
};
template <>
struct CcqUnits<std::uint8_t> {
  static constexpr WeightFormat kFormat = WeightFormat::kCcq275;
  static constexpr std::size_t kOfGroup = 22;
  static constexpr std::size_t kBlockBytes = kCcq275BlockBytes;
  static constexpr std::size_t at(std::size_t unit, std::size_t row) {
    return ccq275_unit(unit, row);
  }
};

/// Byte of a unit of a group of 64 k in a panel of kCcq25 (Word u16) or kCcq275 (u8).
template <class Word>
constexpr std::size_t ccq_unit_offset(std::size_t group, std::size_t unit, std::size_t row) {
  using Units = CcqUnits<Word>;
  return panel_head(Units::kFormat) + group * Units::kBlockBytes + Units::at(unit, row);
}

}  // namespace moesaic
