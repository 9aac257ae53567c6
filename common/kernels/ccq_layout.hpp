#pragma once

#include <array>
#include <cstddef>

// Where the levels of CCQ-2.5 and CCQ-2.75 stand in a block of 64 k of a panel
// (weight_format.hpp): a row's words are the file's units in order, little-endian, so each level is
// a window of one of them.
namespace moesaic {

/// A window of a row's words.
struct LevelPlace {
  int word = 0;
  int bit = 0;  ///< its lowest
};

/// Units of 16 bits with seven levels of 3 bits, two a word; the tenth holds the last level and,
/// below it, the 13 bits of the multiplier: bits 16.. of word 4.
constexpr LevelPlace ccq25_place(std::size_t k) {
  constexpr std::array<int, 7> kBits = {13, 11, 9, 6, 4, 2, 0};
  if (k == 63) return {4, 29};
  return {static_cast<int>(k / 14), static_cast<int>(k / 7 % 2) * 16 + kBits[k % 7]};
}

/// Bytes with three levels of 4 bits, four a word; the sixth word has 16 bits: the last byte and
/// the tail with the last level and, below it, the multiplier: bits 8.. of word 5.
constexpr LevelPlace ccq275_place(std::size_t k) {
  if (k == 63) return {5, 12};
  return {static_cast<int>(k / 12),
          static_cast<int>(k / 3 % 4) * 8 + 4 - 2 * static_cast<int>(k % 3)};
}

inline constexpr std::size_t kCcq25BlockBytes = 640;
inline constexpr std::size_t kCcq275BlockBytes = 704;

/// Byte of unit `unit` (of the file: u16) of a row in a block.
constexpr std::size_t ccq25_unit(std::size_t unit, std::size_t row) {
  return unit / 2 * 128 + row * 4 + unit % 2 * 2;
}
/// The same (u8).
constexpr std::size_t ccq275_unit(std::size_t unit, std::size_t row) {
  return unit < 20 ? unit / 4 * 128 + row * 4 + unit % 4 : 640 + row * 2 + unit - 20;
}

}  // namespace moesaic
