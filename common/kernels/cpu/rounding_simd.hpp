#pragma once

#include <immintrin.h>

#include <cstddef>

#include "common/kernels/cpu/rounding.hpp"
#include "common/kernels/cpu/targets.hpp"
#include "common/tensor/bf16.hpp"

// `f32_to_bf16` on vectors, bit for bit (denormals kept, NaN quiet), and stores of f32 results.
namespace moesaic {

/// The bf16 bits of each lane in its low half.
MOESAIC_AVX2 inline __m256i bf16_bits8(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(
      _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(rounded, quiet, nan);
}

MOESAIC_AVX2 inline __m128i to_bf16x8(__m256 x) {
  const __m256i bits = bf16_bits8(x);
  return _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
}

MOESAIC_AVX2 inline __m256 round_bf16x8(__m256 x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(bf16_bits8(x), 16));
}

MOESAIC_AVX512 inline __m512i bf16_bits16(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(
      _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(rounded, nan, _mm512_srli_epi32(bits, 16), _mm512_set1_epi32(0x40));
}

MOESAIC_AVX512 inline __m256i to_bf16x16(__m512 x) { return _mm512_cvtepi32_epi16(bf16_bits16(x)); }

MOESAIC_AVX512 inline __m512i to_bf16x32(__m512 x, __m512 y) {
  const __m512i even =
      _mm512_set_epi16(62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32, 30, 28, 26,
                       24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  return _mm512_permutex2var_epi16(bf16_bits16(x), even, bf16_bits16(y));
}

MOESAIC_AVX512 inline __m512 round_bf16x16(__m512 x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(bf16_bits16(x), 16));
}

/// Lanes of 16 that hold elements i .. n - 1.
MOESAIC_AVX512 inline __mmask16 lanes16(std::size_t i, std::size_t n) {
  if (i >= n) return 0;
  return n - i >= 16 ? __mmask16(0xffff) : static_cast<__mmask16>((1U << (n - i)) - 1);
}

/// Elements i .. of one row of results, to y_f32 (rounded to bf16 if `round`) and y_bf16, each if
/// not null.
MOESAIC_AVX512 inline void store_row16(__m512 y, __mmask16 m, std::size_t i, bool round,
                                       float* y_f32, Bf16* y_bf16) {
  if (y_f32) _mm512_mask_storeu_ps(y_f32 + i, m, round ? round_bf16x16(y) : y);
  if (y_bf16) _mm256_mask_storeu_epi16(y_bf16 + i, m, to_bf16x16(y));
}

MOESAIC_AVX2 inline void store_row8(__m256 y, std::size_t i, bool round, float* y_f32,
                                    Bf16* y_bf16) {
  if (y_f32) _mm256_storeu_ps(y_f32 + i, round ? round_bf16x8(y) : y);
  if (y_bf16) _mm_storeu_si128(reinterpret_cast<__m128i*>(y_bf16 + i), to_bf16x8(y));
}

}  // namespace moesaic
