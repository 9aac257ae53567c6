#include <immintrin.h>

#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"

// `VectorOps` for all levels with AVX-512.
namespace moesaic::attention_detail {
namespace {

MOESAIC_AVX512 void turn(const float* x, const float* cos, const float* sin, std::size_t n,
                         float* y) {
  const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes16(i, n), pairs = lanes16(i / 2, n / 2) & 0xff;
    const __m512 c = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(pairs, cos + i / 2));
    const __m512 s = _mm512_permutexvar_ps(twice, _mm512_maskz_loadu_ps(pairs, sin + i / 2));
    const __m512 v = _mm512_maskz_loadu_ps(lanes, x + i);
    const __m512 straight = _mm512_mul_ps(v, c);
    const __m512 crossed = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), s);
    const __m512 sum = _mm512_add_ps(straight, crossed);
    _mm512_mask_storeu_ps(y + i, lanes, _mm512_mask_sub_ps(sum, 0x5555, straight, crossed));
  }
}

MOESAIC_AVX512 void scale(const float* x, float factor, std::size_t n, float* y) {
  const __m512 f = _mm512_set1_ps(factor);
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes16(i, n);
    _mm512_mask_storeu_ps(y + i, lanes, _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), f));
  }
}

MOESAIC_AVX512 std::int32_t sum(const std::int8_t* x, std::size_t n) {
  __m512i all = _mm512_setzero_si512();
  for (std::size_t i = 0; i < n; i += 64) {
    const __mmask64 lanes = n - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (n - i)) - 1;
    all = _mm512_dpbusd_epi32(all, _mm512_set1_epi8(1), _mm512_maskz_loadu_epi8(lanes, x + i));
  }
  return _mm512_reduce_add_epi32(all);
}

MOESAIC_AVX512 void merge(float* into, const float* from, std::size_t n, float r, float r2) {
  const __m512 old = _mm512_set1_ps(r), add = _mm512_set1_ps(r2);
  for (std::size_t i = 0; i < n; i += 16)
    _mm512_storeu_ps(into + i, _mm512_add_ps(_mm512_mul_ps(_mm512_loadu_ps(into + i), old),
                                             _mm512_mul_ps(_mm512_loadu_ps(from + i), add)));
}

MOESAIC_AVX512 void divide(const float* x, float divisor, std::size_t n, Compute compute, void* y) {
  const __m512 by = _mm512_set1_ps(divisor);
  const bool f32 = compute == Compute::kF32;
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 lanes = lanes16(i, n);
    const __m512 v = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, x + i), _mm512_setzero_ps());
    store_row16(_mm512_div_ps(v, by), lanes, i, false, f32 ? static_cast<float*>(y) : nullptr,
                f32 ? nullptr : static_cast<Bf16*>(y));
  }
}

/// Four lines of four 16-byte lanes, columns for rows.
struct Lines {
  __m512i line[4];
};
MOESAIC_AVX512_INLINE Lines lanes_for_lines(const Lines& x) {
  const __m512i even01 = _mm512_shuffle_i32x4(x.line[0], x.line[1], 0x88);
  const __m512i odd01 = _mm512_shuffle_i32x4(x.line[0], x.line[1], 0xdd);
  const __m512i even23 = _mm512_shuffle_i32x4(x.line[2], x.line[3], 0x88);
  const __m512i odd23 = _mm512_shuffle_i32x4(x.line[2], x.line[3], 0xdd);
  return {{_mm512_shuffle_i32x4(even01, even23, 0x88), _mm512_shuffle_i32x4(odd01, odd23, 0x88),
           _mm512_shuffle_i32x4(even01, even23, 0xdd), _mm512_shuffle_i32x4(odd01, odd23, 0xdd)}};
}

MOESAIC_AVX512_INLINE Lines four_rows(const std::int8_t* x, std::size_t stride) {
  return {{_mm512_loadu_si512(x), _mm512_loadu_si512(x + stride),
           _mm512_loadu_si512(x + 2 * stride), _mm512_loadu_si512(x + 3 * stride)}};
}

/// Quads of d: lane L of line j is of quad 4 L + j, four bytes of each token.
MOESAIC_AVX512_INLINE Lines quads_of_d(const Lines& x) {
  const __m512i low01 = _mm512_unpacklo_epi32(x.line[0], x.line[1]);
  const __m512i high01 = _mm512_unpackhi_epi32(x.line[0], x.line[1]);
  const __m512i low23 = _mm512_unpacklo_epi32(x.line[2], x.line[3]);
  const __m512i high23 = _mm512_unpackhi_epi32(x.line[2], x.line[3]);
  return {{_mm512_unpacklo_epi64(low01, low23), _mm512_unpackhi_epi64(low01, low23),
           _mm512_unpacklo_epi64(high01, high23), _mm512_unpackhi_epi64(high01, high23)}};
}

/// Quads of tokens: lane L of line j is of d 16 L + 4 j .. + 3, four tokens each.
MOESAIC_AVX512_INLINE Lines quads_of_tokens(const Lines& x) {
  const __m512i low01 = _mm512_unpacklo_epi8(x.line[0], x.line[1]);
  const __m512i high01 = _mm512_unpackhi_epi8(x.line[0], x.line[1]);
  const __m512i low23 = _mm512_unpacklo_epi8(x.line[2], x.line[3]);
  const __m512i high23 = _mm512_unpackhi_epi8(x.line[2], x.line[3]);
  return {{_mm512_unpacklo_epi16(low01, low23), _mm512_unpackhi_epi16(low01, low23),
           _mm512_unpacklo_epi16(high01, high23), _mm512_unpackhi_epi16(high01, high23)}};
}

MOESAIC_AVX512 void store_four(std::size_t dim, std::byte* page, std::size_t token,
                               const std::int8_t* keys, const std::int8_t* values) {
  constexpr std::size_t kQuad = kPageTokens * 4;  // bytes of four d of all tokens
  std::byte* const value_lines = page + kPageTokens * dim + token * kRun;
  for (std::size_t d = 0; d < dim; d += 64) {
    const Lines key = lanes_for_lines(quads_of_d(four_rows(keys + d, dim)));
    std::byte* at = page + d / 4 * kQuad + token * 4;
#pragma GCC unroll 4
    for (std::size_t lane = 0; lane < 4; ++lane, at += 4 * kQuad) {
      const __m512i raised = _mm512_xor_si512(key.line[lane], _mm512_set1_epi8(-128));  // + 128
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm512_castsi512_si128(raised));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at + kQuad),
                       _mm512_extracti32x4_epi32(raised, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at + 2 * kQuad),
                       _mm512_extracti32x4_epi32(raised, 2));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at + 3 * kQuad),
                       _mm512_extracti32x4_epi32(raised, 3));
    }
    const Lines value = lanes_for_lines(quads_of_tokens(four_rows(values + d, dim)));
#pragma GCC unroll 4
    for (std::size_t line = 0; line < 4; ++line)
      _mm512_storeu_si512(value_lines + d * kPageTokens + line * 64, value.line[line]);
  }
}

}  // namespace

const VectorOps kAvx512Vectors = {.turn = turn,
                                  .scale = scale,
                                  .sum = sum,
                                  .merge = merge,
                                  .divide = divide,
                                  .store_four = store_four};

}  // namespace moesaic::attention_detail
