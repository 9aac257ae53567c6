#include <immintrin.h>

#include "common/kernels/cpu/elementwise_impl.hpp"
#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"

namespace moesaic::elementwise_detail {
namespace {

float* at(float* y, std::size_t i) { return y ? y + i : nullptr; }
Bf16* at(Bf16* y, std::size_t i) { return y ? y + i : nullptr; }

MOESAIC_AVX2 inline __m256 erf8(__m256 x) {
  const __m256 sign = _mm256_set1_ps(-0.0F), one = _mm256_set1_ps(1.0F);
  const __m256 a = _mm256_andnot_ps(sign, x);
  const __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(_mm256_set1_ps(kErfP), a, one));
  __m256 p = _mm256_set1_ps(kErfPoly[0]);
  for (int i = 1; i < 5; ++i) p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(kErfPoly[i]));
  const __m256 e = cpu::exp8(_mm256_or_ps(_mm256_mul_ps(a, a), sign));
  const __m256 y = _mm256_sub_ps(one, _mm256_mul_ps(_mm256_mul_ps(p, t), e));
  return _mm256_or_ps(_mm256_andnot_ps(sign, y), _mm256_and_ps(sign, x));
}

MOESAIC_AVX2 void exp_avx2(const float* x, std::size_t n, float* y) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, cpu::exp8(_mm256_loadu_ps(x + i)));
  for (; i < n; ++i) y[i] = exp_portable(x[i]);
}

MOESAIC_AVX2 void quick_gelu_avx2(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16) {
  const __m256 one = _mm256_set1_ps(1.0F), factor = _mm256_set1_ps(-cpu::kQuickGeluFactor);
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    const __m256 e = cpu::exp8(_mm256_mul_ps(v, factor));
    store_row8(_mm256_div_ps(v, _mm256_add_ps(one, e)), i, false, y_f32, y_bf16);
  }
  quick_gelu_scalar(x + i, n - i, at(y_f32, i), at(y_bf16, i));
}

MOESAIC_AVX2 void gelu_erf_avx2(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16) {
  const __m256 one = _mm256_set1_ps(1.0F), half = _mm256_set1_ps(0.5F);
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    const __m256 e = erf8(_mm256_mul_ps(v, _mm256_set1_ps(kRootHalf)));
    store_row8(_mm256_mul_ps(_mm256_mul_ps(half, v), _mm256_add_ps(one, e)), i, false, y_f32,
               y_bf16);
  }
  gelu_erf_scalar(x + i, n - i, at(y_f32, i), at(y_bf16, i));
}

MOESAIC_AVX2 void silu_mul_avx2(const float* g, const float* u, std::size_t n, float* y_f32,
                                Bf16* y_bf16) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 silu = cpu::silu8(_mm256_loadu_ps(g + i));
    store_row8(_mm256_mul_ps(silu, _mm256_loadu_ps(u + i)), i, false, y_f32, y_bf16);
  }
  silu_mul_scalar(g + i, u + i, n - i, at(y_f32, i), at(y_bf16, i));
}

MOESAIC_AVX2 void add_to_avx2(const float* x, std::size_t n, float* y) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i)));
  for (; i < n; ++i) y[i] += x[i];
}

MOESAIC_AVX2 inline __m256 widen8(const Bf16* x) {
  const auto bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}

MOESAIC_AVX2 void add_to_bf16_avx2(const Bf16* x, std::size_t n, Bf16* y) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8)
    store_row8(_mm256_add_ps(widen8(x + i), widen8(y + i)), i, false, nullptr, y);
  add_to_bf16_scalar(x + i, n - i, y + i);
}

MOESAIC_AVX2 void from_bf16_avx2(const Bf16* x, std::size_t n, float* y) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, widen8(x + i));
  from_bf16_scalar(x + i, n - i, y + i);
}

MOESAIC_AVX2 void to_bf16_avx2(const float* x, std::size_t n, Bf16* y) {
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8) store_row8(_mm256_loadu_ps(x + i), i, false, nullptr, y);
  for (; i < n; ++i) y[i] = f32_to_bf16(x[i]);
}

}  // namespace

const Elementwise kAvx2 = {exp_avx2,    quick_gelu_avx2,  gelu_erf_avx2, silu_mul_avx2,
                           add_to_avx2, add_to_bf16_avx2, to_bf16_avx2,  from_bf16_avx2};

}  // namespace moesaic::elementwise_detail
