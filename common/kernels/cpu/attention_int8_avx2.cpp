#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/targets.hpp"

// vpmaddubsw would saturate, so bytes are widened: a dword of four becomes the words of bytes 0, 2
// and those of bytes 1, 3, whose products vpmaddwd adds exactly.

namespace moesaic::attention_detail {
namespace {

struct Words {
  __m256i even, odd;  ///< of bytes 0, 2 and of bytes 1, 3 of each dword
};

MOESAIC_AVX2_INLINE Words unsigned_words(__m256i bytes) {
  return {_mm256_and_si256(bytes, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(bytes, 8)};
}
MOESAIC_AVX2_INLINE Words signed_words(__m256i bytes) {
  return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
}
MOESAIC_AVX2_INLINE __m256i dot(__m256i sum, const Words& a, const Words& b) {
  const __m256i even = _mm256_madd_epi16(a.even, b.even), odd = _mm256_madd_epi16(a.odd, b.odd);
  return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
}
MOESAIC_AVX2_INLINE __m256i broadcast4(const void* p) {
  int v;
  std::memcpy(&v, p, sizeof v);
  return _mm256_set1_epi32(v);
}
MOESAIC_AVX2_INLINE __m256i load(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

/// Lanes of 8 that hold tokens t .. seen - 1.
MOESAIC_AVX2_INLINE __m256 lanes8(std::size_t t, std::size_t seen) {
  const int left = t < seen ? static_cast<int>(std::min<std::size_t>(seen - t, 8)) : 0;
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(left), lane));
}

MOESAIC_AVX2_INLINE float largest_of(__m256 x) {
  const __m128 a = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 b = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_shuffle_ps(b, b, 1)));
}
MOESAIC_AVX2_INLINE std::uint32_t largest_of(__m256i x) {
  alignas(32) std::uint32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), x);
  return *std::max_element(lanes, lanes + 8);
}

MOESAIC_AVX2_INLINE void multiply(float* x, std::size_t n, __m256 r) {
  for (std::size_t i = 0; i < n; i += 8)
    _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), r));
}

MOESAIC_AVX2 void scores(const Int8Step& x, std::size_t u, float* s) {
  const std::int8_t* q = x.q + u * int8_query_stride(x.dim);
  const std::byte* keys = x.page;
  __m256i sum[8];
#pragma GCC unroll 8
  for (auto& lane : sum) lane = _mm256_set1_epi32(-x.query[u].offset);
  for (std::size_t d = 0; d < x.dim; d += 4, keys += 256) {
    if (x.fetch.next != nullptr && u == 0)
      for (std::size_t line = 0; line < 256; line += 64) {
        prefetch(keys + line, x.fetch.next - x.page);
        prefetch(keys + x.dim * kPageTokens + line, x.fetch.next - x.page);
      }
    const Words four = signed_words(broadcast4(q + d));
#pragma GCC unroll 8
    for (std::size_t j = 0; j < 8; ++j)
      sum[j] = dot(sum[j], unsigned_words(load(keys + 32 * j)), four);
  }
  const __m256 scale = _mm256_set1_ps(x.query[u].scale);
#pragma GCC unroll 8
  for (std::size_t j = 0; j < 8; ++j)
    _mm256_store_ps(s + 8 * j,
                    _mm256_mul_ps(_mm256_cvtepi32_ps(sum[j]),
                                  _mm256_mul_ps(scale, _mm256_loadu_ps(x.key_scales() + 8 * j))));
}

/// Scores become weights p as u8.
/// @return what the sums of p and values are multiplied by
MOESAIC_AVX2 float softmax(const Int8Step& x, std::size_t u, float* s, std::uint8_t* p) {
  const __m256 masked = _mm256_set1_ps(kMasked);
  const std::size_t seen = x.seen(u);
  float* l = x.l + u * 16;
  __m256 max = masked;
  for (std::size_t t = 0; t < kPageTokens; t += 8)
    max = _mm256_max_ps(max, _mm256_blendv_ps(masked, _mm256_load_ps(s + t), lanes8(t, seen)));
  if (const float top = largest_of(max); top > x.m[u]) {
    const __m256 r = cpu::exp8(_mm256_set1_ps(x.m[u] - top));
    multiply(l, 16, r);
    multiply(x.o + u * x.dim, x.dim, r);
    x.m[u] = top;
  }
  const __m256 m = _mm256_set1_ps(x.m[u]);
  __m256i most = _mm256_castps_si256(_mm256_set1_ps(1e-30F));
  for (std::size_t t = 0; t < kPageTokens; t += 8) {
    const __m256 lanes = lanes8(t, seen);
    const __m256 e = _mm256_and_ps(lanes, cpu::exp8(_mm256_sub_ps(_mm256_load_ps(s + t), m)));
    float* lane = l + t % 16;
    _mm256_storeu_ps(lane, _mm256_add_ps(_mm256_loadu_ps(lane), e));
    const __m256 weighted =
        _mm256_and_ps(lanes, _mm256_mul_ps(e, _mm256_loadu_ps(x.value_scales() + t)));
    most = _mm256_max_epu32(most, _mm256_castps_si256(weighted));
    _mm256_store_ps(s + t, weighted);
  }
  const auto pm = std::bit_cast<float>(largest_of(most));
  const __m256 to_255 = _mm256_set1_ps(255.0F / pm);
  for (std::size_t t = 0; t < kPageTokens; t += 8) {
    const __m256i v = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_load_ps(s + t), to_255));
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p + t), _mm_packus_epi16(words, words));
  }
  return pm / 255.0F;
}

/// o += p . values of V vectors of 8 d.
template <std::size_t V>
MOESAIC_AVX2 void add_values(const std::uint8_t* p, const std::byte* values, std::size_t width,
                             float scale, float* o) {
  __m256i sum[V];
#pragma GCC unroll 8
  for (auto& lane : sum) lane = _mm256_setzero_si256();
  for (std::size_t t = 0; t < kPageTokens; t += 4, values += width * 4) {
    const Words four = unsigned_words(broadcast4(p + t));
#pragma GCC unroll 8
    for (std::size_t j = 0; j < V; ++j)
      sum[j] = dot(sum[j], signed_words(load(values + 32 * j)), four);
  }
  const __m256 r = _mm256_set1_ps(scale);
#pragma GCC unroll 8
  for (std::size_t j = 0; j < V; ++j)
    _mm256_storeu_ps(o + 8 * j,
                     _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[j]), r, _mm256_loadu_ps(o + 8 * j)));
}

}  // namespace

void int8_step_avx2(const Int8Step& x) {
  for (std::size_t u = 0; u < x.units; ++u) {
    alignas(32) float s[kPageTokens];
    alignas(32) std::uint8_t p[kPageTokens];
    scores(x, u, s);
    const float scale = softmax(x, u, s, p);
    float* o = x.o + u * x.dim;
    const std::byte* part = x.values();
    for (std::size_t d0 = 0; d0 < x.dim; d0 += kRun, part += kRun * kPageTokens) {
      if (x.dim - d0 >= kRun) {
        add_values<8>(p, part, kRun, scale, o + d0);
        continue;
      }
      const std::size_t width = x.dim - d0;
      for (std::size_t d = 0; d < width; d += 16)
        add_values<2>(p, part + d * 4, width, scale, o + d0 + d);
    }
  }
}

}  // namespace moesaic::attention_detail
