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

MOESAIC_AVX512 void leaves(const float* c, float weight, float* y_f32, Bf16* y_bf16) {
  for (std::size_t i = 0; i < 32; i += 16)
    store_row16(_mm512_mul_ps(_mm512_set1_ps(weight), _mm512_loadu_ps(c + i)), 0xffff, i, false,
                y_f32, y_bf16);
}

/// Sums of row r with their bias, 16 from i on.
MOESAIC_AVX512 [[gnu::always_inline]] inline __m512 sum16(const SumRows& x, std::size_t r,
                                                          std::size_t i, __mmask16 m) {
  const __m512 c = _mm512_maskz_loadu_ps(m, x.c + r * x.ldc + i);
  return x.bias != nullptr ? _mm512_add_ps(c, _mm512_maskz_loadu_ps(m, x.bias + i)) : c;
}

MOESAIC_AVX512 void store(const SumRows& x, bool add, float* y, std::size_t ldy) {
  for (std::size_t r = 0; r < x.rows; ++r, y += ldy)
    for (std::size_t i = 0; i < x.count; i += 16) {
      const __mmask16 m = lanes16(i, x.count);
      const __m512 sum = sum16(x, r, i, m);
      _mm512_mask_storeu_ps(y + i, m,
                            add ? _mm512_add_ps(sum, _mm512_maskz_loadu_ps(m, y + i)) : sum);
    }
}

MOESAIC_AVX512 void activate(const SumRows& x, Activation activation, float* y_f32, Bf16* y_bf16,
                             std::size_t ldy) {
  if (activation != Activation::kQuickGelu)
    return activate_by(elementwise_for(Isa::kAvx512), x, activation, y_f32, y_bf16, ldy);
  for (std::size_t r = 0; r < x.rows; ++r)
    for (std::size_t i = 0; i < x.count; i += 16) {
      const __mmask16 m = lanes16(i, x.count);
      store_row16(quick_gelu16(sum16(x, r, i, m)), m, r * ldy + i, false, y_f32, y_bf16);
    }
}

}  // namespace

const LinearLevel& linear_avx512() {
  static constexpr LinearLevel level{
      .sums = {portable_bf16_tiles<V, 6>(), widened_tiles<V, 12>(), f32_tiles<V, 12>()},
      .integer = &kIntegerAvx512,
      .silu_mul = silu_mul,
      .store = store,
      .activate = activate,
      .leaves = leaves};
  return level;
}

}  // namespace moesaic::cpu
