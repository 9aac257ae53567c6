#include <immintrin.h>

#include <cmath>

#include "common/kernels/cpu/norm_impl.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"

namespace moesaic::norm_detail {
namespace {

constexpr std::size_t kVectors = kStripes / 8;

MOESAIC_AVX2 inline void store(const __m256 (&acc)[kVectors], Stripes& p) {
  for (std::size_t v = 0; v < kVectors; ++v) _mm256_storeu_ps(p.data() + 8 * v, acc[v]);
}

MOESAIC_AVX2 float dot(const float* a, const float* b, std::size_t n) {
  __m256 acc[kVectors];
  for (auto& v : acc) v = _mm256_setzero_ps();
  std::size_t k = 0;
  for (; k + kStripes <= n; k += kStripes)
    for (std::size_t v = 0; v < kVectors; ++v)
      acc[v] =
          _mm256_fmadd_ps(_mm256_loadu_ps(a + k + 8 * v), _mm256_loadu_ps(b + k + 8 * v), acc[v]);
  Stripes p;
  store(acc, p);
  for (std::size_t j = 0; k + j < n; ++j) p[j] = std::fma(a[k + j], b[k + j], p[j]);
  return fold(p);
}

MOESAIC_AVX2 float sum(const float* a, std::size_t n) {
  __m256 acc[kVectors];
  for (auto& v : acc) v = _mm256_setzero_ps();
  std::size_t k = 0;
  for (; k + kStripes <= n; k += kStripes)
    for (std::size_t v = 0; v < kVectors; ++v)
      acc[v] = _mm256_add_ps(acc[v], _mm256_loadu_ps(a + k + 8 * v));
  Stripes p;
  store(acc, p);
  for (std::size_t j = 0; k + j < n; ++j) p[j] += a[k + j];
  return fold(p);
}

MOESAIC_AVX2 float deviation(const float* x, float mean, std::size_t n) {
  __m256 acc[kVectors];
  for (auto& v : acc) v = _mm256_setzero_ps();
  const __m256 m = _mm256_set1_ps(mean);
  std::size_t k = 0;
  for (; k + kStripes <= n; k += kStripes)
    for (std::size_t v = 0; v < kVectors; ++v) {
      const __m256 d = _mm256_sub_ps(_mm256_loadu_ps(x + k + 8 * v), m);
      acc[v] = _mm256_fmadd_ps(d, d, acc[v]);
    }
  Stripes p;
  store(acc, p);
  for (std::size_t j = 0; k + j < n; ++j) {
    const float d = x[k + j] - mean;
    p[j] = std::fma(d, d, p[j]);
  }
  return fold(p);
}

MOESAIC_AVX2 void apply(const float* x, float mean, float inv, const float* weight,
                        const float* bias, std::size_t n, bool round, float* y_f32, Bf16* y_bf16) {
  const __m256 mu = _mm256_set1_ps(mean), scale = _mm256_set1_ps(inv);
  std::size_t c = 0;
  for (; c + 8 <= n; c += 8) {
    const __m256 centred = _mm256_sub_ps(_mm256_loadu_ps(x + c), mu);
    __m256 y = _mm256_mul_ps(_mm256_mul_ps(centred, scale), _mm256_loadu_ps(weight + c));
    if (bias) y = _mm256_add_ps(y, _mm256_loadu_ps(bias + c));
    store_row8(y, c, round, y_f32, y_bf16);
  }
  for (; c < n; ++c) store_row1(normalised(x, mean, inv, weight, bias, c), c, round, y_f32, y_bf16);
}

}  // namespace

const Level kAvx2 = {dot, dots_one_by_one<dot>, sum, deviation, apply};

}  // namespace moesaic::norm_detail
