#include <immintrin.h>

#include <cstddef>
#include <utility>

#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/linear_level.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"
#include "common/kernels/cpu/targets.hpp"

#define MOESAIC_TILE_TARGET MOESAIC_AVX512

namespace moesaic::cpu {
namespace {

/// Sixteen rows a vector: a pass is a whole panel, its second vector the second half.
struct V {
  using F = __m512;
  static constexpr std::size_t kLanes = 16, kPasses = 1, kPassLines = 2048, kSecondLine = 1024;

  MOESAIC_AVX512 [[gnu::always_inline]] static F zero() { return _mm512_setzero_ps(); }
  MOESAIC_AVX512 [[gnu::always_inline]] static F load(const float* p) { return _mm512_loadu_ps(p); }
  MOESAIC_AVX512 [[gnu::always_inline]] static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  MOESAIC_AVX512 [[gnu::always_inline]] static F broadcast(const float* p) {
    return _mm512_set1_ps(*p);
  }
  MOESAIC_AVX512 [[gnu::always_inline]] static F fma(F a, F b, F c) {
    return _mm512_fmadd_ps(a, b, c);
  }
  MOESAIC_AVX512 [[gnu::always_inline]] static F add(F a, F b) { return _mm512_add_ps(a, b); }
  MOESAIC_AVX512 [[gnu::always_inline]] static F even(const std::byte* line) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_load_si512(line), 16));
  }
  MOESAIC_AVX512 [[gnu::always_inline]] static F odd(const std::byte* line) {
    const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_load_si512(line), high));
  }
};

#include "common/kernels/cpu/linear_tiles.inl"

MOESAIC_AVX512 void silu_mul(const float* gate, const float* up, bool round, float* h) {
  const __m512 y = _mm512_mul_ps(silu16(_mm512_loadu_ps(gate)), _mm512_loadu_ps(up));
  _mm512_storeu_ps(h, round ? round_bf16x16(y) : y);
}

MOESAIC_AVX512 void leaves(const float* c, float weight, bool round, float* y) {
  for (int i = 0; i < 32; i += 16) {
    const __m512 v = _mm512_mul_ps(_mm512_set1_ps(weight), _mm512_loadu_ps(c + i));
    _mm512_storeu_ps(y + i, round ? round_bf16x16(v) : v);
  }
}

}  // namespace

const LinearLevel& linear_avx512() {
  static constexpr LinearLevel level{
      .sums = {portable_bf16_tiles<V, 6>(), widened_tiles<V, 12>(), f32_tiles<V, 12>()},
      .integer = &kIntegerAvx512,
      .silu_mul = silu_mul,
      .leaves = leaves};
  return level;
}

}  // namespace moesaic::cpu
