#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "common/kernels/cpu/targets.hpp"

// How the kernels of 64-byte vectors decode integer weights.
//
// A format gives the weights of 64 k of a panel as lines of 16 rows x 4 k: line(l, half) of
// k = 4 l .. 4 l + 3, each weight raised by kZero to be unsigned, or, of a quarter (four lines),
// raised by as much as is asked; and a multiplier per row for the sums of those 64 k, if it has
// one.

namespace moesaic::cpu {

inline constexpr std::size_t kBlockBytes = 1088;
inline constexpr std::size_t kTile = 2048;  ///< unpacked bytes of 64 k x 32 rows

struct W8r {
  static constexpr std::size_t kBytes = kTile;  ///< of 64 k
  static constexpr std::int32_t kZero = 128;
  static constexpr bool kGroupScale = false;
  static const std::byte* block(const std::byte* panel, std::size_t q) {
    return panel + 128 + q * kTile;
  }
  /// Calls use(k / 4, weights of rows 0-15, weights of rows 16-31) for each of 16 lines.
  template <class Use>
  MOESAIC_AVX512_INLINE static void lines(const std::byte* block, const std::byte*, std::size_t,
                                          Use&& use) {
    const __m512i raise = _mm512_set1_epi8(static_cast<char>(0x80));
#pragma GCC unroll 2
    for (std::size_t l = 0; l < 16; ++l)
      use(l, _mm512_xor_si512(_mm512_load_si512(block + l * 128), raise),
          _mm512_xor_si512(_mm512_load_si512(block + l * 128 + 64), raise));
  }
};

struct W4r {
  static constexpr std::size_t kBytes = kBlockBytes;
  static constexpr std::int32_t kZero = 128;
  static constexpr bool kGroupScale = false;
  static const std::byte* block(const std::byte* panel, std::size_t q) {
    return panel + 128 + q * kBlockBytes;
  }

  /// The multiplier in every 16 bits, the same raised by 2^12, and what takes 8 from a code and
  /// raises it, in every byte.
  struct Group {
    __m512i mult, mult12, base;
  };
  /// Multipliers of 16 rows, four groups each, doubled into both halves of a lane.
  MOESAIC_AVX512_INLINE static __m512i words(const std::byte* block, int half) {
    const __m512i twice = _mm512_set_epi16(15, 15, 14, 14, 13, 13, 12, 12, 11, 11, 10, 10, 9, 9, 8,
                                           8, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    const auto* p = reinterpret_cast<const __m256i*>(block + 32 * half);
    return _mm512_permutexvar_epi16(twice, _mm512_castsi256_si512(_mm256_load_si256(p)));
  }
  MOESAIC_AVX512_INLINE static Group group(__m512i words, int j, std::int32_t raise = kZero) {
    const __m512i shift = _mm512_set1_epi16(static_cast<short>(4 * j));
    const __m512i m = _mm512_and_si512(_mm512_srlv_epi16(words, shift), _mm512_set1_epi16(15));
    const __m512i eight = _mm512_mullo_epi16(_mm512_set1_epi8(8), m);
    return {m, _mm512_slli_epi16(m, 12),
            _mm512_sub_epi8(_mm512_set1_epi8(static_cast<char>(raise)), eight)};
  }
  /// code * mult <= 225: one 16-bit multiplication scales two codes.
  MOESAIC_AVX512_INLINE static __m512i low(__m512i c, Group g) {
    return _mm512_add_epi8(_mm512_mullo_epi16(_mm512_and_si512(c, _mm512_set1_epi8(15)), g.mult),
                           g.base);
  }
  /// 16 code * 2^12 mult / 2^16, exactly.
  MOESAIC_AVX512_INLINE static __m512i high(__m512i c, Group g) {
    const __m512i codes = _mm512_and_si512(c, _mm512_set1_epi8(static_cast<char>(0xF0)));
    return _mm512_add_epi8(_mm512_mulhi_epu16(codes, g.mult12), g.base);
  }

  /// Lines 4 j .. 4 j + 3.
  template <class Use>
  MOESAIC_AVX512_INLINE static void four_lines(const std::byte* block, int j, Group g0, Group g1,
                                               Use&& use) {
#pragma GCC unroll 2
    for (int o = 0; o < 2; ++o) {
      const std::byte* line = block + 64 + (2 * j + o) * 128;
      const __m512i c0 = _mm512_load_si512(line), c1 = _mm512_load_si512(line + 64);
      const auto l = static_cast<std::size_t>(4 * j + 2 * o);
      use(l, low(c0, g0), low(c1, g1));
      use(l + 1, high(c0, g0), high(c1, g1));
    }
  }
  template <class Use>
  MOESAIC_AVX512_INLINE static void lines(const std::byte* block, const std::byte*, std::size_t,
                                          Use&& use) {
    const __m512i words0 = words(block, 0), words1 = words(block, 1);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) four_lines(block, j, group(words0, j), group(words1, j), use);
  }
  template <class Use>
  MOESAIC_AVX512_INLINE static void quarter(const std::byte* block, const std::byte*, std::size_t,
                                            int j, std::int32_t raise, Use&& use) {
    four_lines(block, j, group(words(block, 0), j, raise), group(words(block, 1), j, raise), use);
  }
};

struct Ccq2 {
  static constexpr std::size_t kBytes = kBlockBytes / 2;
  static constexpr std::int32_t kZero = 32;
  static constexpr bool kGroupScale = true;
  static const std::byte* block(const std::byte* panel, std::size_t q) {
    return panel + 384 + q / 2 * kBlockBytes;
  }

  /// Constants of 16 columns.
  struct Code {
    __m512 scale, zero;
  };
  MOESAIC_AVX512_INLINE static Code code(const std::byte* panel, int half) {
    return {_mm512_load_ps(panel + 128 + 64 * half), _mm512_load_ps(panel + 256 + 64 * half)};
  }
  /// Four levels of 16 rows from a byte each.
  MOESAIC_AVX512_INLINE static __m512i levels(const std::byte* bytes, Code code) {
    const __m512i b = _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes)));
    // Never fused: floor(b * scale + zero + 0.5), each step rounded.
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(b), code.scale);
    v = _mm512_add_ps(_mm512_add_ps(v, code.zero), _mm512_set1_ps(0.5F));
    const __m512i c = _mm512_cvt_roundps_epi32(v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    const __m512i low =
        _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(c, 9), _mm512_set1_epi32(0x3F)),
                        _mm512_and_si512(_mm512_slli_epi32(c, 2), _mm512_set1_epi32(0x3F00)));
    const __m512i top =
        _mm512_or_si512(_mm512_and_si512(_mm512_slli_epi32(c, 13), _mm512_set1_epi32(0x3F0000)),
                        _mm512_and_si512(_mm512_slli_epi32(c, 24), _mm512_set1_epi32(0x3F000000)));
    return _mm512_or_si512(low, top);
  }
  template <class Use>
  MOESAIC_AVX512_INLINE static void lines(const std::byte* block, const std::byte* panel,
                                          std::size_t q, Use&& use) {
    const Code c0 = code(panel, 0), c1 = code(panel, 1);
    const std::byte* words = block + 64 + q % 2 * 512;
#pragma GCC unroll 2
    for (std::size_t l = 0; l < 16; ++l)
      use(l, levels(words + l * 32, c0), levels(words + l * 32 + 16, c1));
  }
  /// Lines 4 j .. 4 j + 3, raised by kZero.
  template <class Use>
  MOESAIC_AVX512_INLINE static void quarter(const std::byte* block, const std::byte* panel,
                                            std::size_t q, int j, Use&& use) {
    const Code c0 = code(panel, 0), c1 = code(panel, 1);
    const std::byte* words = block + 64 + q % 2 * 512;
    const auto first = static_cast<std::size_t>(4 * j);
#pragma GCC unroll 4
    for (std::size_t l = first; l < first + 4; ++l)
      use(l, levels(words + l * 32, c0), levels(words + l * 32 + 16, c1));
  }
  /// Multipliers of the 64 k for 16 rows.
  MOESAIC_AVX512_INLINE static __m512i group_scale(const std::byte* block, std::size_t q,
                                                   int half) {
    const std::byte* l = block + q % 2 * 32 + half * 16;
    return _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(l)));
  }
};

}  // namespace moesaic::cpu
