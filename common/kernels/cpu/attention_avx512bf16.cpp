#include <immintrin.h>

#include <cstring>

#include "common/kernels/cpu/attention_impl.hpp"
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

}  // namespace

const Level kAvx512Bf16 = {.dots_f32 = dots_f32_avx512,
                           .dots_bf16 = dots_pairs,
                           .softmax = softmax_avx512,
                           .packed = true,
                           .int8_step = int8_step_avx512,
                           .integer = &cpu::kIntegerAvx512};

}  // namespace moesaic::attention_detail
