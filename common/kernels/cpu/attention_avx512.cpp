#include <immintrin.h>

#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"

namespace moesaic::attention_detail {
namespace {

/// U units by V vectors of 16 columns, all accumulators in registers: U * V <= 24.
template <std::size_t U, std::size_t V>
MOESAIC_AVX512 void tile_f32(const Dots& x, std::size_t column) {
  const auto* a = static_cast<const float*>(x.a);
  const auto* b = reinterpret_cast<const float*>(x.b) + column;
  const std::ptrdiff_t ahead = x.ahead - x.b;
  __m512 sum[U][V];
#pragma GCC unroll 6
  for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v) sum[u][v] = _mm512_setzero_ps();
  for (std::size_t k = 0; k < x.k; ++k, ++a, b += x.ldb) {
    __m512 line[V];
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v) {
      prefetch(b + 16 * v, ahead);
      line[v] = _mm512_loadu_ps(b + 16 * v);
    }
#pragma GCC unroll 6
    for (std::size_t u = 0; u < U; ++u) {
      const __m512 q = _mm512_set1_ps(a[u * x.lda]);
#pragma GCC unroll 4
      for (std::size_t v = 0; v < V; ++v) sum[u][v] = _mm512_fmadd_ps(q, line[v], sum[u][v]);
    }
  }
#pragma GCC unroll 6
  for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v) {
      float* c = x.c + u * x.ldc + column + 16 * v;
      _mm512_storeu_ps(c, _mm512_add_ps(_mm512_loadu_ps(c), sum[u][v]));
    }
}

/// The same with two chains (even and odd k) each: U * V <= 12.
template <std::size_t U, std::size_t V>
MOESAIC_AVX512 void tile_bf16(const Dots& x, std::size_t column) {
  const auto* a = static_cast<const float*>(x.a);
  const std::byte* b = x.b + column * 4;
  const std::ptrdiff_t ahead = x.ahead - x.b;
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000U));
  for (std::size_t k0 = 0; k0 < x.k; k0 += 32) {
    const std::size_t pairs = x.k - k0 < 32 ? (x.k - k0) / 2 : 16;
    __m512 even[U][V], odd[U][V];
#pragma GCC unroll 6
    for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 4
      for (std::size_t v = 0; v < V; ++v) even[u][v] = odd[u][v] = _mm512_setzero_ps();
    for (std::size_t j = 0; j < pairs; ++j, a += 2, b += x.ldb * 4) {
      __m512 low[V], top[V];
#pragma GCC unroll 4
      for (std::size_t v = 0; v < V; ++v) {
        prefetch(b + 64 * v, ahead);
        const __m512i line = _mm512_loadu_si512(b + 64 * v);
        low[v] = _mm512_castsi512_ps(_mm512_slli_epi32(line, 16));
        top[v] = _mm512_castsi512_ps(_mm512_and_si512(line, high));
      }
#pragma GCC unroll 6
      for (std::size_t u = 0; u < U; ++u) {
        const __m512 q0 = _mm512_set1_ps(a[u * x.lda]);
#pragma GCC unroll 4
        for (std::size_t v = 0; v < V; ++v) even[u][v] = _mm512_fmadd_ps(q0, low[v], even[u][v]);
        const __m512 q1 = _mm512_set1_ps(a[u * x.lda + 1]);
#pragma GCC unroll 4
        for (std::size_t v = 0; v < V; ++v) odd[u][v] = _mm512_fmadd_ps(q1, top[v], odd[u][v]);
      }
    }
#pragma GCC unroll 6
    for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 4
      for (std::size_t v = 0; v < V; ++v) {
        float* c = x.c + u * x.ldc + column + 16 * v;
        _mm512_storeu_ps(c,
                         _mm512_add_ps(_mm512_loadu_ps(c), _mm512_add_ps(even[u][v], odd[u][v])));
      }
  }
}

template <std::size_t U>
MOESAIC_AVX512 void rows_f32(const Dots& x) {
  std::size_t n = 0;
  for (; n + 64 <= x.columns; n += 64) tile_f32<U, 4>(x, n);
  for (; n + 32 <= x.columns; n += 32) tile_f32<U, 2>(x, n);
  for (; n < x.columns; n += 16) tile_f32<U, 1>(x, n);
}

template <std::size_t U>
MOESAIC_AVX512 void rows_bf16(const Dots& x) {
  std::size_t n = 0;
  for (; n + 32 <= x.columns; n += 32) tile_bf16<U, 2>(x, n);
  for (; n < x.columns; n += 16) tile_bf16<U, 1>(x, n);
}

MOESAIC_AVX512 inline void rescale(const Softmax& x, std::size_t u, float max) {
  const __m512 r = cpu::exp16(_mm512_set1_ps(x.m[u] - max));
  float* l = x.l + u * 16;
  float* o = x.o + u * x.dim;
  _mm512_storeu_ps(l, _mm512_mul_ps(_mm512_loadu_ps(l), r));
  for (std::size_t d = 0; d < x.dim; d += 16)
    _mm512_storeu_ps(o + d, _mm512_mul_ps(_mm512_loadu_ps(o + d), r));
  x.m[u] = max;
}

MOESAIC_AVX512 inline void store_weights(const Softmax& x, std::size_t u, std::size_t t, __m512 p) {
  if (x.weights == Weights::kPacked)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(x.packed + u * x.lds + t), to_bf16x16(p));
  else
    _mm512_storeu_ps(x.s + u * x.lds + t, x.weights == Weights::kF32 ? p : round_bf16x16(p));
}

}  // namespace

void dots_f32_avx512(const Dots& x) {
  static constexpr DotsFn kRows[] = {rows_f32<1>, rows_f32<2>, rows_f32<3>,
                                     rows_f32<4>, rows_f32<5>, rows_f32<6>};
  kRows[x.units - 1](x);
}

void dots_bf16_avx512(const Dots& x) {
  static constexpr DotsFn kRows[] = {rows_bf16<1>, rows_bf16<2>, rows_bf16<3>,
                                     rows_bf16<4>, rows_bf16<5>, rows_bf16<6>};
  kRows[x.units - 1](x);
}

MOESAIC_AVX512 void softmax_avx512(const Softmax& x) {
  const __m512 masked = _mm512_set1_ps(kMasked);
  for (std::size_t u = 0; u < x.units; ++u) {
    float* s = x.s + u * x.lds;
    const std::size_t seen = x.seen(u), whole = seen / 16 * 16;
    const __mmask16 rest = lanes16(whole, seen);
    __m512 max = _mm512_mask_loadu_ps(masked, rest, s + whole);
    for (std::size_t t = 0; t < whole; t += 16) max = _mm512_max_ps(max, _mm512_loadu_ps(s + t));
    if (const float top = _mm512_reduce_max_ps(max); top > x.m[u] + x.slack) rescale(x, u, top);
    const __m512 m = _mm512_set1_ps(x.m[u]);
    __m512 l = _mm512_loadu_ps(x.l + u * 16);
    std::size_t t = 0;
    for (; t < whole; t += 16) {
      const __m512 p = cpu::exp16_bounded(_mm512_sub_ps(_mm512_loadu_ps(s + t), m));
      l = _mm512_add_ps(l, p);
      store_weights(x, u, t, p);
    }
    for (; t < x.tokens; t += 16) {
      const __m512 p = _mm512_maskz_mov_ps(
          lanes16(t, seen), cpu::exp16_bounded(_mm512_sub_ps(_mm512_loadu_ps(s + t), m)));
      l = _mm512_add_ps(l, p);
      store_weights(x, u, t, p);
    }
    _mm512_storeu_ps(x.l + u * 16, l);
  }
}

const Level kAvx512 = {.dots_f32 = dots_f32_avx512,
                       .dots_bf16 = dots_bf16_avx512,
                       .softmax = softmax_avx512,
                       .int8_step = int8_step_avx512,
                       .integer = &cpu::kIntegerAvx512,
                       .vectors = &kAvx512Vectors};

}  // namespace moesaic::attention_detail
