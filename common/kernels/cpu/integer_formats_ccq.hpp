#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "common/kernels/ccq_layout.hpp"
#include "common/kernels/cpu/targets.hpp"

// How the kernels of 64-byte vectors decode CCQ-2.5 and CCQ-2.75, in the form of the other formats:
// lines of 16 rows x 4 k.

namespace moesaic::cpu {

/// Lines of levels, each cut out of the word of its row by a shift: byte j of a lane is the level
/// of k = 4 line + j.
template <LevelPlace (*kPlace)(std::size_t k), int kBits, bool kShortLast>
struct CcqLevels {
  template <int kWord>
  MOESAIC_AVX512_INLINE static __m512i word(const std::byte* block, int half) {
    if constexpr (kShortLast && kWord == 5)
      return _mm512_cvtepu16_epi32(
          _mm256_load_si256(reinterpret_cast<const __m256i*>(block + 640 + 32 * half)));
    else
      return _mm512_load_si512(block + 128 * kWord + 64 * half);
  }
  /// The level of k at byte k % 4, other bits as they come.
  template <std::size_t k>
  MOESAIC_AVX512_INLINE static __m512i shifted(const std::byte* block, int half) {
    constexpr LevelPlace place = kPlace(k);
    constexpr int up = static_cast<int>(k % 4 * 8) - place.bit;
    const __m512i w = word<place.word>(block, half);
    if constexpr (up > 0) return _mm512_slli_epi32(w, up);
    if constexpr (up < 0) return _mm512_srli_epi32(w, -up);
    return w;
  }
  template <std::size_t kLine>
  MOESAIC_AVX512_INLINE static __m512i line(const std::byte* block, int half) {
    constexpr int kMask = (1 << kBits) - 1;
    constexpr int kOrAnd = 0xF8;  // a | (b & c)
    __m512i levels = _mm512_and_si512(shifted<4 * kLine>(block, half), _mm512_set1_epi32(kMask));
    levels = _mm512_ternarylogic_epi32(levels, shifted<4 * kLine + 1>(block, half),
                                       _mm512_set1_epi32(kMask << 8), kOrAnd);
    levels = _mm512_ternarylogic_epi32(levels, shifted<4 * kLine + 2>(block, half),
                                       _mm512_set1_epi32(kMask << 16), kOrAnd);
    return _mm512_ternarylogic_epi32(levels, shifted<4 * kLine + 3>(block, half),
                                     _mm512_set1_epi32(kMask << 24), kOrAnd);
  }
};

/// Levels and a multiplier of 13 bits for their sums.
struct Ccq25 {
  static constexpr std::size_t kBytes = kCcq25BlockBytes;
  static constexpr std::int32_t kZero = 4;
  static constexpr bool kGroupScale = true;
  using Levels = CcqLevels<ccq25_place, 3, false>;

  static const std::byte* block(const std::byte* panel, std::size_t q) {
    return panel + 128 + q * kBytes;
  }
  template <class Use, std::size_t... l>
  MOESAIC_AVX512_INLINE static void each(const std::byte* block, Use&& use,
                                         std::index_sequence<l...>) {
    (use(l, Levels::line<l>(block, 0), Levels::line<l>(block, 1)), ...);
  }
  template <class Use>
  MOESAIC_AVX512_INLINE static void lines(const std::byte* block, const std::byte*, std::size_t,
                                          Use&& use) {
    each(block, use, std::make_index_sequence<16>());
  }
  MOESAIC_AVX512_INLINE static __m512i group_scale(const std::byte* block, std::size_t, int half) {
    return _mm512_and_si512(_mm512_srli_epi32(Levels::word<4>(block, half), 16),
                            _mm512_set1_epi32(0x1FFF));
  }
};

/// Levels times a multiplier: one plane of bytes, as w4r.
struct Ccq275 {
  static constexpr std::size_t kBytes = kCcq275BlockBytes;
  static constexpr std::int32_t kZero = 128;
  static constexpr bool kGroupScale = false;
  using Levels = CcqLevels<ccq275_place, 4, true>;

  static const std::byte* block(const std::byte* panel, std::size_t q) {
    return panel + 128 + q * kBytes;
  }
  /// The multiplier in both 16-bit halves of a lane, and what takes 8 from a level and raises it,
  /// in every byte.
  struct Group {
    __m512i mult, base;
  };
  MOESAIC_AVX512_INLINE static Group group(const std::byte* block, int half, std::int32_t raise) {
    const __m512i last = Levels::word<5>(block, half);
    const __m512i m =
        _mm512_and_si512(_mm512_or_si512(_mm512_srli_epi32(last, 8), _mm512_slli_epi32(last, 8)),
                         _mm512_set1_epi16(15));
    const __m512i eight = _mm512_mullo_epi16(_mm512_set1_epi8(8), m);
    return {m, _mm512_sub_epi8(_mm512_set1_epi8(static_cast<char>(raise)), eight)};
  }
  /// level * multiplier <= 225: one 16-bit multiplication scales two.
  MOESAIC_AVX512_INLINE static __m512i scaled(__m512i levels, Group g) {
    return _mm512_add_epi8(_mm512_mullo_epi16(levels, g.mult), g.base);
  }
  template <std::size_t kFirst, class Use, std::size_t... l>
  MOESAIC_AVX512_INLINE static void each(const std::byte* block, Group g0, Group g1, Use&& use,
                                         std::index_sequence<l...>) {
    (use(kFirst + l, scaled(Levels::line<kFirst + l>(block, 0), g0),
         scaled(Levels::line<kFirst + l>(block, 1), g1)),
     ...);
  }
  template <class Use>
  MOESAIC_AVX512_INLINE static void lines(const std::byte* block, const std::byte*, std::size_t,
                                          Use&& use) {
    each<0>(block, group(block, 0, kZero), group(block, 1, kZero), use,
            std::make_index_sequence<16>());
  }
  /// Lines 4 j .. 4 j + 3, raised by `raise`.
  template <class Use>
  MOESAIC_AVX512_INLINE static void quarter(const std::byte* block, const std::byte*, std::size_t,
                                            int j, std::int32_t raise, Use&& use) {
    const Group g0 = group(block, 0, raise), g1 = group(block, 1, raise);
    const auto four = std::make_index_sequence<4>();
    switch (j) {
      case 0:
        return each<0>(block, g0, g1, use, four);
      case 1:
        return each<4>(block, g0, g1, use, four);
      case 2:
        return each<8>(block, g0, g1, use, four);
      default:
        return each<12>(block, g0, g1, use, four);
    }
  }
};

}  // namespace moesaic::cpu
