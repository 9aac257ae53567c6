#include <immintrin.h>

#include <cstring>

#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"
#include "common/kernels/cpu/targets.hpp"

namespace moesaic::attention_detail {
namespace {

/// A pair of bf16 in every lane.
MOESAIC_AVX512BF16 inline __m512bh broadcast_pair(const Bf16* pair) {
  std::int32_t bits;
  std::memcpy(&bits, pair, sizeof bits);
  return reinterpret_cast<__m512bh>(_mm512_set1_epi32(bits));
}

/// U units by V vectors of 16 columns; c is the operand that the products are added to.
template <std::size_t U, std::size_t V>
MOESAIC_AVX512BF16 void tile_pairs(const Dots& x, std::size_t column) {
  const auto* a = static_cast<const Bf16*>(x.a);
  const std::byte* b = x.b + column * 4;
  const std::ptrdiff_t ahead = x.ahead - x.b;
  __m512 sum[U][V];
#pragma GCC unroll 6
  for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v)
      sum[u][v] = _mm512_loadu_ps(x.c + u * x.ldc + column + 16 * v);
  for (std::size_t k = 0; k < x.k; k += 2, a += 2, b += x.ldb * 4) {
    __m512bh line[V];
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v) {
      prefetch(b + 64 * v, ahead);
      line[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + 64 * v));
    }
#pragma GCC unroll 6
    for (std::size_t u = 0; u < U; ++u) {
      const __m512bh q = broadcast_pair(a + u * x.lda);
#pragma GCC unroll 4
      for (std::size_t v = 0; v < V; ++v) sum[u][v] = _mm512_dpbf16_ps(sum[u][v], q, line[v]);
    }
  }
#pragma GCC unroll 6
  for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v)
      _mm512_storeu_ps(x.c + u * x.ldc + column + 16 * v, sum[u][v]);
}

template <std::size_t U>
MOESAIC_AVX512BF16 void rows_pairs(const Dots& x) {
  std::size_t n = 0;
  for (; n + 64 <= x.columns; n += 64) tile_pairs<U, 4>(x, n);
  for (; n + 32 <= x.columns; n += 32) tile_pairs<U, 2>(x, n);
  for (; n < x.columns; n += 16) tile_pairs<U, 1>(x, n);
}

void dots_pairs(const Dots& x) {
  static constexpr DotsFn kRows[] = {rows_pairs<1>, rows_pairs<2>, rows_pairs<3>,
                                     rows_pairs<4>, rows_pairs<5>, rows_pairs<6>};
  kRows[x.units - 1](x);
}

// ---------------------------------------------------------------- many units

struct Scratch {
  alignas(64) float s[kWideUnits][kBlockTokens];
  alignas(64) Bf16 p[kWideUnits][kBlockTokens];
  alignas(64) float max[kWideUnits][16];  ///< of the scores, lane by lane
};

MOESAIC_AVX512BF16_INLINE __m512bh load_pairs(const std::byte* p) {
  return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p));
}

/// Scores of U units from unit u on for V vectors of 16 keys from key t on.
template <std::size_t U, std::size_t V>
MOESAIC_AVX512BF16 void wide_scores(const Bf16Step& x, std::size_t u0, std::size_t t, Scratch& y) {
  const Bf16* a = x.q + u0 * x.dim;
  const std::byte* b = x.keys + t * x.dim * sizeof(Bf16);
  __m512 sum[U][V];
#pragma GCC unroll 6
  for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v) sum[u][v] = _mm512_setzero_ps();
#pragma GCC unroll 1
  for (std::size_t d = 0; d < x.dim; d += 2, a += 2, b += kRun * 4) {
    __m512bh line[V];
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v) line[v] = load_pairs(b + 64 * v);
#pragma GCC unroll 6
    for (std::size_t u = 0; u < U; ++u) {
      const __m512bh q = broadcast_pair(a + u * x.dim);
#pragma GCC unroll 4
      for (std::size_t v = 0; v < V; ++v) sum[u][v] = _mm512_dpbf16_ps(sum[u][v], q, line[v]);
    }
  }
#pragma GCC unroll 6
  for (std::size_t u = 0; u < U; ++u) {
    __m512 max = sum[u][0];
#pragma GCC unroll 4
    for (std::size_t v = 0; v < V; ++v) {
      _mm512_store_ps(y.s[u0 + u] + t + 16 * v, sum[u][v]);
      if (v > 0) max = _mm512_max_ps(max, sum[u][v]);
    }
    if (t > 0) max = _mm512_max_ps(max, _mm512_load_ps(y.max[u0 + u]));
    _mm512_store_ps(y.max[u0 + u], max);
  }
}

MOESAIC_AVX512BF16_INLINE void rescale(const Bf16Step& x, std::size_t u, float max) {
  const __m512 r = cpu::exp16_bounded(_mm512_set1_ps(x.m[u] - max));
  float* l = x.l + u * 16;
  float* o = x.o + u * x.dim;
  _mm512_storeu_ps(l, _mm512_mul_ps(_mm512_loadu_ps(l), r));
  for (std::size_t d = 0; d < x.dim; d += 16)
    _mm512_storeu_ps(o + d, _mm512_mul_ps(_mm512_loadu_ps(o + d), r));
  x.m[u] = max;
}

/// Scores of unit u become weights.
template <bool kMask>
MOESAIC_AVX512BF16 void wide_softmax(const Bf16Step& x, std::size_t u, Scratch& y) {
  const std::size_t seen = x.seen(u);
  const float* s = y.s[u];
  __m512 max = _mm512_load_ps(y.max[u]);
  if constexpr (kMask) {
    max = _mm512_set1_ps(kMasked);
    for (std::size_t t = 0; t < seen; t += 16)
      max = _mm512_mask_max_ps(max, lanes16(t, seen), max, _mm512_load_ps(s + t));
  }
  if (_mm512_cmp_ps_mask(max, _mm512_set1_ps(x.m[u] + x.slack), _CMP_GT_OQ) != 0)
    rescale(x, u, _mm512_reduce_max_ps(max));
  const __m512 m = _mm512_set1_ps(x.m[u]);
  __m512 l = _mm512_loadu_ps(x.l + u * 16);
#pragma GCC unroll 2
  for (std::size_t t = 0; t < x.tokens; t += 32) {
    __m512 p0 = cpu::exp16_bounded(_mm512_sub_ps(_mm512_load_ps(s + t), m));
    __m512 p1 = cpu::exp16_bounded(_mm512_sub_ps(_mm512_load_ps(s + t + 16), m));
    if constexpr (kMask) {
      p0 = _mm512_maskz_mov_ps(lanes16(t, seen), p0);
      p1 = _mm512_maskz_mov_ps(lanes16(t + 16, seen), p1);
    }
    l = _mm512_add_ps(_mm512_add_ps(l, p0), p1);
    _mm512_store_si512(y.p[u] + t, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(p1, p0)));
  }
  _mm512_storeu_ps(x.l + u * 16, l);
}

/// o += P . V of U units from unit u on for V vectors of 16 d from d on, keys t .. end - 1. Vectors
/// from the fifth on stand in the next part, which is then 16 wide.
template <std::size_t U, std::size_t V>
MOESAIC_AVX512BF16 void wide_values(const Bf16Step& x, std::size_t u0, std::size_t d, std::size_t t,
                                    std::size_t end, const Scratch& y) {
  const std::size_t width = x.dim - d / kRun * kRun < kRun ? x.dim - d / kRun * kRun : kRun;
  const std::byte* part = x.values + d / kRun * kRun * x.stride * sizeof(Bf16);
  const std::byte* b = part + (t / 2 * width + d % kRun) * 4;
  const std::byte* tail = part + kRun * x.stride * sizeof(Bf16) + t / 2 * 64;
  float* o = x.o + u0 * x.dim + d;
  __m512 sum[U][V];
#pragma GCC unroll 6
  for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 5
    for (std::size_t v = 0; v < V; ++v) sum[u][v] = _mm512_loadu_ps(o + u * x.dim + 16 * v);
#pragma GCC unroll 1
  for (; t < end; t += 2, b += width * 4, tail += 64) {
    __m512bh line[V];
#pragma GCC unroll 5
    for (std::size_t v = 0; v < V; ++v) line[v] = load_pairs(v < 4 ? b + 64 * v : tail);
#pragma GCC unroll 6
    for (std::size_t u = 0; u < U; ++u) {
      const __m512bh p = broadcast_pair(y.p[u0 + u] + t);
#pragma GCC unroll 5
      for (std::size_t v = 0; v < V; ++v) sum[u][v] = _mm512_dpbf16_ps(sum[u][v], p, line[v]);
    }
  }
#pragma GCC unroll 6
  for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 5
    for (std::size_t v = 0; v < V; ++v) _mm512_storeu_ps(o + u * x.dim + 16 * v, sum[u][v]);
}

template <std::size_t U>
void scores_of(const Bf16Step& x, std::size_t u, std::size_t t, Scratch& y) {
  if (x.tokens - t >= kRun)
    wide_scores<U, 4>(x, u, t, y);
  else
    wide_scores<U, 2>(x, u, t, y);
}

using ScoresFn = void (*)(const Bf16Step&, std::size_t, std::size_t, Scratch&);
using ValuesFn = void (*)(const Bf16Step&, std::size_t, std::size_t, std::size_t, std::size_t,
                          const Scratch&);

/// Keys whose values stay in the nearest cache while all units take them.
constexpr std::size_t kValueRun = 128;
/// Units that share a line of values in registers, by vectors of 16 d.
constexpr std::size_t kShared[] = {0, 6, 6, 6, 6, 4};

void add_values(const Bf16Step& x, std::size_t d, std::size_t vectors, std::size_t t,
                const Scratch& y) {
  static constexpr ValuesFn kValues[5][6] = {
      {wide_values<1, 1>, wide_values<2, 1>, wide_values<3, 1>, wide_values<4, 1>,
       wide_values<5, 1>, wide_values<6, 1>},
      {wide_values<1, 2>, wide_values<2, 2>, wide_values<3, 2>, wide_values<4, 2>,
       wide_values<5, 2>, wide_values<6, 2>},
      {wide_values<1, 3>, wide_values<2, 3>, wide_values<3, 3>, wide_values<4, 3>,
       wide_values<5, 3>, wide_values<6, 3>},
      {wide_values<1, 4>, wide_values<2, 4>, wide_values<3, 4>, wide_values<4, 4>,
       wide_values<5, 4>, wide_values<6, 4>},
      {wide_values<1, 5>, wide_values<2, 5>, wide_values<3, 5>, wide_values<4, 5>, nullptr,
       nullptr}};
  const std::size_t end = t + kValueRun < x.tokens ? t + kValueRun : x.tokens;
  for (std::size_t u = 0; u < x.units; u += kShared[vectors]) {
    const std::size_t units = x.units - u < kShared[vectors] ? x.units - u : kShared[vectors];
    kValues[vectors - 1][units - 1](x, u, d, t, end, y);
  }
}

void fetch_lines(const Bf16Step& x, std::size_t first, std::size_t last) {
  for (std::size_t line = first; line < last; ++line)
    prefetch(x.fetch, static_cast<std::ptrdiff_t>(line * 64));
}

void wide_step(const Bf16Step& x) {
  static constexpr ScoresFn kScores[] = {scores_of<1>, scores_of<2>, scores_of<3>,
                                         scores_of<4>, scores_of<5>, scores_of<6>};
  Scratch y;
  for (std::size_t t = 0; t < x.tokens; t += kRun)
    for (std::size_t u = 0; u < x.units; u += kTileUnits) {
      const std::size_t units = x.units - u < kTileUnits ? x.units - u : kTileUnits;
      kScores[units - 1](x, u, t, y);
    }
  for (std::size_t u = 0; u < x.units; ++u) {
    fetch_lines(x, x.fetch_lines * u / x.units, x.fetch_lines * (u + 1) / x.units);
    x.seen(u) == x.tokens ? wide_softmax<false>(x, u, y) : wide_softmax<true>(x, u, y);
  }
  for (std::size_t t = 0; t < x.tokens; t += kValueRun)
    for (std::size_t d = 0; d < x.dim;) {
      const std::size_t left = (x.dim - d) / 16, vectors = left == 5 ? 5 : left < 4 ? left : 4;
      add_values(x, d, vectors, t, y);
      d += vectors * 16;
    }
}

}  // namespace

const Level kAvx512Bf16 = {.dots_f32 = dots_f32_avx512,
                           .dots_bf16 = dots_pairs,
                           .softmax = softmax_avx512,
                           .packed = true,
                           .bf16_step = wide_step,
                           .int8_step = int8_step_avx512,
                           .integer = &cpu::kIntegerAvx512,
                           .vectors = &kAvx512Vectors};

}  // namespace moesaic::attention_detail
