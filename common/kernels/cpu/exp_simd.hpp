#pragma once

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>

/// exp and silu of 1, 8 and 16 lanes by the same IEEE operations, so equal bit for bit:
///   t = clamp(x * log2(e), -126, 126), n = round_even(t), exp(x) = p(t - n) * 2^n
/// p is a polynomial of degree 5 for 2^f, |f| <= 0.5. NaN stays NaN. Round to nearest and no FTZ
/// are assumed (the MXCSR default); results are never denormal.
namespace moesaic::cpu {

inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kExpLimit = 126.0f;
/// 1.5 * 2^23: adding it rounds to an integer, which then stands in the low bits of the sum.
inline constexpr float kRoundMagic = 12582912.0f;
inline constexpr float kExp2Poly[] = {0.00132647273f, 0.00967151299f, 0.0555073358f,
                                      0.240222424f,   0.693147004f,   1.0f};

inline float exp1(float x) {
  float t = x * kLog2E;
  t = -kExpLimit > t ? -kExpLimit : t;
  t = kExpLimit < t ? kExpLimit : t;
  const float shifted = t + kRoundMagic;
  const float f = t - (shifted - kRoundMagic);
  float p = std::fma(kExp2Poly[0], f, kExp2Poly[1]);
  for (int i = 2; i < 6; ++i) p = std::fma(p, f, kExp2Poly[i]);
  return p * std::bit_cast<float>((std::bit_cast<std::uint32_t>(shifted) << 23) + (127u << 23));
}

inline constexpr float kQuickGeluFactor = 1.702F;

/// g / (1 + exp(-g))
inline float silu1(float g) { return g / (1.0f + exp1(-g)); }

[[gnu::target("avx2,fma"), gnu::always_inline]] inline __m256 exp8(__m256 x) {
  __m256 t = _mm256_mul_ps(x, _mm256_set1_ps(kLog2E));
  // max and min return their second operand for NaN.
  t = _mm256_max_ps(_mm256_set1_ps(-kExpLimit), t);
  t = _mm256_min_ps(_mm256_set1_ps(kExpLimit), t);
  const __m256 magic = _mm256_set1_ps(kRoundMagic);
  const __m256 shifted = _mm256_add_ps(t, magic);
  const __m256 f = _mm256_sub_ps(t, _mm256_sub_ps(shifted, magic));
  __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(kExp2Poly[0]), f, _mm256_set1_ps(kExp2Poly[1]));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kExp2Poly[2]));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kExp2Poly[3]));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kExp2Poly[4]));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(kExp2Poly[5]));
  const __m256i power = _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(shifted), 23),
                                         _mm256_set1_epi32(127 << 23));
  return _mm256_mul_ps(p, _mm256_castsi256_ps(power));
}

[[gnu::target("avx2,fma"), gnu::always_inline]] inline __m256 silu8(__m256 g) {
  const __m256 negated = _mm256_xor_ps(g, _mm256_set1_ps(-0.0f));
  return _mm256_div_ps(g, _mm256_add_ps(_mm256_set1_ps(1.0f), exp8(negated)));
}

[[gnu::target("avx512f"), gnu::always_inline]] inline __m512 exp16(__m512 x) {
  __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(kLog2E));
  t = _mm512_max_ps(_mm512_set1_ps(-kExpLimit), t);
  t = _mm512_min_ps(_mm512_set1_ps(kExpLimit), t);
  const __m512 magic = _mm512_set1_ps(kRoundMagic);
  const __m512 shifted = _mm512_add_ps(t, magic);
  const __m512 f = _mm512_sub_ps(t, _mm512_sub_ps(shifted, magic));
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(kExp2Poly[0]), f, _mm512_set1_ps(kExp2Poly[1]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2Poly[2]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2Poly[3]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2Poly[4]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2Poly[5]));
  const __m512i power = _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(shifted), 23),
                                         _mm512_set1_epi32(127 << 23));
  return _mm512_mul_ps(p, _mm512_castsi512_ps(power));
}

/// exp16 for x below 87 (and NaN), the same bits in fewer instructions: 2^n comes by vscalefps,
/// which is exact here, as no result is denormal.
[[gnu::target("avx512f"), gnu::always_inline]] inline __m512 exp16_bounded(__m512 x) {
  const __m512 t =
      _mm512_max_ps(_mm512_set1_ps(-kExpLimit), _mm512_mul_ps(x, _mm512_set1_ps(kLog2E)));
  const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(t, n);
  __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(kExp2Poly[0]), f, _mm512_set1_ps(kExp2Poly[1]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2Poly[2]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2Poly[3]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2Poly[4]));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(kExp2Poly[5]));
  return _mm512_scalef_ps(p, n);
}

/// exp16_bounded of N vectors side by side, step by step: N chains hide each other's latency,
/// which the CPU's scheduler is too small to see to. t - round(t) comes by vreduceps, exactly.
template <std::size_t N>
[[gnu::target("avx512f,avx512dq"), gnu::always_inline]] inline void exp_nonpositive(
    __m512 (&x)[N]) {
  __m512 f[N], p[N];
#pragma GCC unroll 8
  for (std::size_t i = 0; i < N; ++i) x[i] = _mm512_mul_ps(x[i], _mm512_set1_ps(kLog2E));
#pragma GCC unroll 8
  for (std::size_t i = 0; i < N; ++i) x[i] = _mm512_max_ps(_mm512_set1_ps(-kExpLimit), x[i]);
#pragma GCC unroll 8
  for (std::size_t i = 0; i < N; ++i)
    f[i] = _mm512_reduce_ps(x[i], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#pragma GCC unroll 8
  for (std::size_t i = 0; i < N; ++i)
    p[i] = _mm512_fmadd_ps(_mm512_set1_ps(kExp2Poly[0]), f[i], _mm512_set1_ps(kExp2Poly[1]));
#pragma GCC unroll 4
  for (std::size_t k = 2; k < 6; ++k)
#pragma GCC unroll 8
    for (std::size_t i = 0; i < N; ++i)
      p[i] = _mm512_fmadd_ps(p[i], f[i], _mm512_set1_ps(kExp2Poly[k]));
#pragma GCC unroll 8
  for (std::size_t i = 0; i < N; ++i) x[i] = _mm512_scalef_ps(p[i], _mm512_sub_ps(x[i], f[i]));
}

[[gnu::target("avx512f"), gnu::always_inline]] inline __m512 silu16(__m512 g) {
  const __m512i sign = _mm512_set1_epi32(INT32_MIN);
  const __m512 negated = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(g), sign));
  return _mm512_div_ps(g, _mm512_add_ps(_mm512_set1_ps(1.0f), exp16(negated)));
}

/// v / (1 + exp(-1.702 v))
[[gnu::target("avx512f"), gnu::always_inline]] inline __m512 quick_gelu16(__m512 v) {
  const __m512 e = exp16(_mm512_mul_ps(v, _mm512_set1_ps(-kQuickGeluFactor)));
  return _mm512_div_ps(v, _mm512_add_ps(_mm512_set1_ps(1.0F), e));
}

}  // namespace moesaic::cpu
