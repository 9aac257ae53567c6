#include <immintrin.h>

#include <algorithm>

#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"

namespace moesaic::attention_detail {
namespace {

/// U units by V vectors of 8 columns, U * V <= 12.
template <std::size_t U, std::size_t V>
MOESAIC_AVX2 void tile_f32(const Dots& x, std::size_t unit, std::size_t column) {
  const auto* a = static_cast<const float*>(x.a) + unit * x.lda;
  const auto* b = reinterpret_cast<const float*>(x.b) + column;
  __m256 sum[U][V];
#pragma GCC unroll 3
  for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v) sum[u][v] = _mm256_setzero_ps();
  for (std::size_t k = 0; k < x.k; ++k, ++a, b += x.ldb) {
    __m256 line[V];
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v) line[v] = _mm256_loadu_ps(b + 8 * v);
#pragma GCC unroll 3
    for (std::size_t u = 0; u < U; ++u) {
      const __m256 q = _mm256_set1_ps(a[u * x.lda]);
#pragma GCC unroll 4
      for (std::size_t v = 0; v < V; ++v) sum[u][v] = _mm256_fmadd_ps(q, line[v], sum[u][v]);
    }
  }
#pragma GCC unroll 3
  for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v) {
      float* c = x.c + (unit + u) * x.ldc + column + 8 * v;
      _mm256_storeu_ps(c, _mm256_add_ps(_mm256_loadu_ps(c), sum[u][v]));
    }
}

/// The same with two chains (even and odd k) each: U * V <= 4.
template <std::size_t U, std::size_t V>
MOESAIC_AVX2 void tile_bf16(const Dots& x, std::size_t unit, std::size_t column) {
  const auto* a = static_cast<const float*>(x.a) + unit * x.lda;
  const std::byte* b = x.b + column * 4;
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
  for (std::size_t k0 = 0; k0 < x.k; k0 += 32) {
    const std::size_t pairs = x.k - k0 < 32 ? (x.k - k0) / 2 : 16;
    __m256 even[U][V], odd[U][V];
#pragma GCC unroll 2
    for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 2
      for (std::size_t v = 0; v < V; ++v) even[u][v] = odd[u][v] = _mm256_setzero_ps();
    for (std::size_t j = 0; j < pairs; ++j, a += 2, b += x.ldb * 4) {
#pragma GCC unroll 2
      for (std::size_t v = 0; v < V; ++v) {
        const __m256i line = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 32 * v));
        const __m256 low = _mm256_castsi256_ps(_mm256_slli_epi32(line, 16));
        const __m256 top = _mm256_castsi256_ps(_mm256_and_si256(line, high));
#pragma GCC unroll 2
        for (std::size_t u = 0; u < U; ++u) {
          even[u][v] = _mm256_fmadd_ps(_mm256_set1_ps(a[u * x.lda]), low, even[u][v]);
          odd[u][v] = _mm256_fmadd_ps(_mm256_set1_ps(a[u * x.lda + 1]), top, odd[u][v]);
        }
      }
    }
#pragma GCC unroll 2
    for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 2
      for (std::size_t v = 0; v < V; ++v) {
        float* c = x.c + (unit + u) * x.ldc + column + 8 * v;
        _mm256_storeu_ps(c,
                         _mm256_add_ps(_mm256_loadu_ps(c), _mm256_add_ps(even[u][v], odd[u][v])));
      }
  }
}

void dots_f32(const Dots& x) {
  for (std::size_t n = 0; n < x.columns;) {
    const bool wide = x.columns - n >= 32;
    std::size_t u = 0;
    for (; u + 3 <= x.units; u += 3) wide ? tile_f32<3, 4>(x, u, n) : tile_f32<3, 2>(x, u, n);
    for (; u < x.units; ++u) wide ? tile_f32<1, 4>(x, u, n) : tile_f32<1, 2>(x, u, n);
    n += wide ? 32 : 16;
  }
}

void dots_bf16(const Dots& x) {
  for (std::size_t n = 0; n < x.columns; n += 16) {
    std::size_t u = 0;
    for (; u + 2 <= x.units; u += 2) tile_bf16<2, 2>(x, u, n);
    if (u < x.units) tile_bf16<1, 2>(x, u, n);
  }
}

/// Lanes of 8 that hold tokens t .. seen - 1.
MOESAIC_AVX2 inline __m256 lanes8(std::size_t t, std::size_t seen) {
  const int left = t < seen ? static_cast<int>(std::min<std::size_t>(seen - t, 8)) : 0;
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(left), lane));
}

MOESAIC_AVX2 inline float reduce_max(__m256 x) {
  const __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 b = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}

MOESAIC_AVX2 inline void multiply(float* x, std::size_t n, __m256 r) {
  for (std::size_t i = 0; i < n; i += 8)
    _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), r));
}

MOESAIC_AVX2 void softmax(const Softmax& x) {
  const __m256 masked = _mm256_set1_ps(kMasked);
  for (std::size_t u = 0; u < x.units; ++u) {
    float* s = x.s + u * x.lds;
    float* l = x.l + u * 16;
    const std::size_t seen = x.seen(u);
    __m256 max = masked;
    for (std::size_t t = 0; t < seen; t += 8)
      max = _mm256_max_ps(max, _mm256_blendv_ps(masked, _mm256_loadu_ps(s + t), lanes8(t, seen)));
    if (const float top = reduce_max(max); top > x.m[u] + x.slack) {
      const __m256 r = cpu::exp8(_mm256_set1_ps(x.m[u] - top));
      multiply(l, 16, r);
      multiply(x.o + u * x.dim, x.dim, r);
      x.m[u] = top;
    }
    const __m256 m = _mm256_set1_ps(x.m[u]);
    for (std::size_t t = 0; t < x.tokens; t += 8) {
      const __m256 p =
          _mm256_and_ps(lanes8(t, seen), cpu::exp8(_mm256_sub_ps(_mm256_loadu_ps(s + t), m)));
      float* lane = l + t % 16;
      _mm256_storeu_ps(lane, _mm256_add_ps(_mm256_loadu_ps(lane), p));
      _mm256_storeu_ps(s + t, x.weights == Weights::kF32 ? p : round_bf16x8(p));
    }
  }
}

}  // namespace

const Level kAvx2 = {.dots_f32 = dots_f32,
                     .dots_bf16 = dots_bf16,
                     .softmax = softmax,
                     .int8_step = int8_step_avx2,
                     .integer = &cpu::kIntegerAvx2};

}  // namespace moesaic::attention_detail
