#include <immintrin.h>

#include <cstddef>
#include <utility>

#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/linear_level.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"
#include "common/kernels/cpu/targets.hpp"

#define MOESAIC_TILE_TARGET MOESAIC_AVX2

namespace moesaic::cpu {
namespace {

/// Eight rows a vector: a pass is half a panel, two neighbouring vectors of each line.
struct V {
  using F = __m256;
  static constexpr std::size_t kLanes = 8, kPasses = 2, kPassLines = 1024, kSecondLine = 32;

  MOESAIC_AVX2 [[gnu::always_inline]] static F zero() { return _mm256_setzero_ps(); }
  MOESAIC_AVX2 [[gnu::always_inline]] static F load(const float* p) { return _mm256_loadu_ps(p); }
  MOESAIC_AVX2 [[gnu::always_inline]] static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  MOESAIC_AVX2 [[gnu::always_inline]] static F broadcast(const float* p) {
    return _mm256_broadcast_ss(p);
  }
  MOESAIC_AVX2 [[gnu::always_inline]] static F fma(F a, F b, F c) {
    return _mm256_fmadd_ps(a, b, c);
  }
  MOESAIC_AVX2 [[gnu::always_inline]] static F add(F a, F b) { return _mm256_add_ps(a, b); }
  MOESAIC_AVX2 [[gnu::always_inline]] static F even(const std::byte* line) {
    const __m256i pairs = _mm256_load_si256(reinterpret_cast<const __m256i*>(line));
    return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
  }
  MOESAIC_AVX2 [[gnu::always_inline]] static F odd(const std::byte* line) {
    const __m256i pairs = _mm256_load_si256(reinterpret_cast<const __m256i*>(line));
    const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, high));
  }
};

#include "common/kernels/cpu/linear_tiles.inl"

MOESAIC_AVX2 void silu_mul(const float* gate, const float* up, bool round, float* h) {
  for (int i = 0; i < 16; i += 8) {
    const __m256 y = _mm256_mul_ps(silu8(_mm256_loadu_ps(gate + i)), _mm256_loadu_ps(up + i));
    _mm256_storeu_ps(h + i, round ? round_bf16x8(y) : y);
  }
}

MOESAIC_AVX2 void leaves(const float* c, float weight, float* y_f32, Bf16* y_bf16) {
  for (std::size_t i = 0; i < 32; i += 8)
    store_row8(_mm256_mul_ps(_mm256_set1_ps(weight), _mm256_loadu_ps(c + i)), i, false, y_f32,
               y_bf16);
}

void activate(const SumRows& x, Activation activation, float* y_f32, Bf16* y_bf16,
              std::size_t ldy) {
  activate_by(elementwise_for(Isa::kAvx2), x, activation, y_f32, y_bf16, ldy);
}

}  // namespace

const LinearLevel& linear_avx2() {
  static constexpr LinearLevel level{
      .sums = {portable_bf16_tiles<V, 3>(), widened_tiles<V, 5>(), f32_tiles<V, 6>()},
      .integer = &kIntegerAvx2,
      .silu_mul = silu_mul,
      .store = store_plain,
      .activate = activate,
      .leaves = leaves};
  return level;
}

}  // namespace moesaic::cpu
