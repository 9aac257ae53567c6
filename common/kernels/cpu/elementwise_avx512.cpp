#include <immintrin.h>

#include "common/kernels/cpu/elementwise_impl.hpp"
#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"

namespace moesaic::elementwise_detail {
namespace {

MOESAIC_AVX512 inline __m512 erf16(__m512 x) {
  const __m512 sign = _mm512_set1_ps(-0.0F), one = _mm512_set1_ps(1.0F);
  const __m512 a = _mm512_andnot_ps(sign, x);
  const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(_mm512_set1_ps(kErfP), a, one));
  __m512 p = _mm512_set1_ps(kErfPoly[0]);
  for (int i = 1; i < 5; ++i) p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(kErfPoly[i]));
  const __m512 e = cpu::exp16(_mm512_or_ps(_mm512_mul_ps(a, a), sign));
  const __m512 y = _mm512_sub_ps(one, _mm512_mul_ps(_mm512_mul_ps(p, t), e));
  return _mm512_or_ps(_mm512_andnot_ps(sign, y), _mm512_and_ps(sign, x));
}

MOESAIC_AVX512 void exp_avx512(const float* x, std::size_t n, float* y) {
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 m = lanes16(i, n);
    _mm512_mask_storeu_ps(y + i, m, cpu::exp16(_mm512_maskz_loadu_ps(m, x + i)));
  }
}

MOESAIC_AVX512 void quick_gelu_avx512(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16) {
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 m = lanes16(i, n);
    store_row16(cpu::quick_gelu16(_mm512_maskz_loadu_ps(m, x + i)), m, i, false, y_f32, y_bf16);
  }
}

MOESAIC_AVX512 void gelu_erf_avx512(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16) {
  const __m512 one = _mm512_set1_ps(1.0F), half = _mm512_set1_ps(0.5F);
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 m = lanes16(i, n);
    const __m512 v = _mm512_maskz_loadu_ps(m, x + i);
    const __m512 e = erf16(_mm512_mul_ps(v, _mm512_set1_ps(kRootHalf)));
    store_row16(_mm512_mul_ps(_mm512_mul_ps(half, v), _mm512_add_ps(one, e)), m, i, false, y_f32,
                y_bf16);
  }
}

MOESAIC_AVX512 void silu_mul_avx512(const float* g, const float* u, std::size_t n, float* y_f32,
                                    Bf16* y_bf16) {
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 m = lanes16(i, n);
    const __m512 silu = cpu::silu16(_mm512_maskz_loadu_ps(m, g + i));
    store_row16(_mm512_mul_ps(silu, _mm512_maskz_loadu_ps(m, u + i)), m, i, false, y_f32, y_bf16);
  }
}

MOESAIC_AVX512 void add_to_avx512(const float* x, std::size_t n, float* y) {
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 m = lanes16(i, n);
    const __m512 sum =
        _mm512_add_ps(_mm512_maskz_loadu_ps(m, x + i), _mm512_maskz_loadu_ps(m, y + i));
    _mm512_mask_storeu_ps(y + i, m, sum);
  }
}

/// 16 values from i on; behind n zeros.
MOESAIC_AVX512 inline __m512 widen16(const Bf16* x, std::size_t i, __mmask16 m) {
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, x + i));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

MOESAIC_AVX512 void add_to_bf16_avx512(const Bf16* x, std::size_t n, Bf16* y) {
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 m = lanes16(i, n);
    store_row16(_mm512_add_ps(widen16(x, i, m), widen16(y, i, m)), m, i, false, nullptr, y);
  }
}

MOESAIC_AVX512 void from_bf16_avx512(const Bf16* x, std::size_t n, float* y) {
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 m = lanes16(i, n);
    _mm512_mask_storeu_ps(y + i, m, widen16(x, i, m));
  }
}

MOESAIC_AVX512 void to_bf16_avx512(const float* x, std::size_t n, Bf16* y) {
  for (std::size_t i = 0; i < n; i += 16) {
    const __mmask16 m = lanes16(i, n);
    store_row16(_mm512_maskz_loadu_ps(m, x + i), m, i, false, nullptr, y);
  }
}

}  // namespace

const Elementwise kAvx512 = {exp_avx512,    quick_gelu_avx512,  gelu_erf_avx512, silu_mul_avx512,
                             add_to_avx512, add_to_bf16_avx512, to_bf16_avx512,  from_bf16_avx512};

}  // namespace moesaic::elementwise_detail
