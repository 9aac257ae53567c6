#include <immintrin.h>

#include <array>
#include <bit>
#include <cstring>

#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"
#include "common/kernels/cpu/targets.hpp"

namespace moesaic::attention_detail {
namespace {

/// gcc 12 copies and spills around the builtin once there are many accumulators.
MOESAIC_AVX512_INLINE void dot(__m512i& sum, __m512i u8, __m512i s8) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
}
MOESAIC_AVX512_INLINE __m512i broadcast4(const void* p) {
  int v;
  std::memcpy(&v, p, sizeof v);
  return _mm512_set1_epi32(v);
}

/// Where lines that are asked for come; kNone: none are.
enum class Into { kNone, kL1, kL2 };

/// Asks for the lines of `PageFetch`, a few at a time all through the step: a burst would fill the
/// queue of misses and let it run dry.
template <Into kInto>
class Fetch {
 public:
  MOESAIC_AVX512 explicit Fetch(const PageFetch& x)
      : at_(x.page),
        order_(x.order + x.first),
        here_(x.lines - x.first),
        next_(x.next),
        begin_(x.order),
        left_(kInto != Into::kNone ? x.lines : 0) {}

  template <std::size_t kLines>
  MOESAIC_AVX512_INLINE void lines() {
    static_assert(kLines <= PageFetch::kSpare);
    if constexpr (kInto != Into::kNone) {
      if (left_ <= 0) return;
      if (here_ <= 0) {
        at_ = next_;
        order_ = begin_;
        here_ = left_;
      }
#pragma GCC unroll 16
      for (std::size_t i = 0; i < kLines; ++i)
        _mm_prefetch(at_ + order_[i], kInto == Into::kL2 ? _MM_HINT_T1 : _MM_HINT_T0);
      order_ += kLines;
      here_ -= kLines;
      left_ -= kLines;
    }
  }
  MOESAIC_AVX512_INLINE void rest() {
    if constexpr (kInto != Into::kNone)
      while (left_ > 0) lines<4>();
  }

 private:
  const std::byte* at_;
  const std::uint32_t* order_;
  std::ptrdiff_t here_;  ///< lines before it goes on at next_
  const std::byte* next_;
  const std::uint32_t* begin_;
  std::ptrdiff_t left_;
};

/// Lines to ask for in one of the 64 + 4 U parts of a step with D = 128.
template <std::size_t U>
constexpr std::size_t kLinesAPart = U >= 5 ? 3 : 4;

/// Scores of the whole page.
template <std::size_t U, Into kInto>
MOESAIC_AVX512 void scores(const Int8Step& x, float (*s)[kPageTokens], Fetch<kInto>& fetch) {
  const std::int8_t* q = x.q;
  const std::byte* keys = x.page;
  __m512i sum[U][4];
#pragma GCC unroll 6
  for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) sum[u][j] = _mm512_set1_epi32(-x.query[u].offset);
#pragma GCC unroll 1
  for (std::size_t d = 0; d < x.dim; d += 4, q += 4, keys += 256) {
    fetch.template lines<kLinesAPart<U>>();
    __m512i line[4];
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) {
      line[j] = _mm512_loadu_si512(keys + 64 * j);
    }
#pragma GCC unroll 6
    for (std::size_t u = 0; u < U; ++u) {
      const __m512i four = broadcast4(q + u * int8_query_stride(x.dim));
#pragma GCC unroll 4
      for (std::size_t j = 0; j < 4; ++j) dot(sum[u][j], line[j], four);
    }
  }
#pragma GCC unroll 4
  for (std::size_t j = 0; j < 4; ++j) {
    const __m512 ks = _mm512_loadu_ps(x.key_scales() + 16 * j);
#pragma GCC unroll 6
    for (std::size_t u = 0; u < U; ++u)
      _mm512_store_ps(s[u] + 16 * j,
                      _mm512_mul_ps(_mm512_cvtepi32_ps(sum[u][j]),
                                    _mm512_mul_ps(_mm512_set1_ps(x.query[u].scale), ks)));
  }
}

MOESAIC_AVX512 [[gnu::noinline]] void rescale(const Int8Step& x, std::size_t u, __m512 max) {
  const float top = _mm512_reduce_max_ps(max);
  const __m512 r = cpu::exp16(_mm512_set1_ps(x.m[u] - top));
  float* l = x.l + u * 16;
  float* o = x.o + u * x.dim;
  _mm512_storeu_ps(l, _mm512_mul_ps(_mm512_loadu_ps(l), r));
  for (std::size_t d = 0; d < x.dim; d += 16)
    _mm512_storeu_ps(o + d, _mm512_mul_ps(_mm512_loadu_ps(o + d), r));
  x.m[u] = top;
}

/// Scores of one unit become weights p as u8.
/// @return what the sums of p and values are multiplied by
template <std::size_t U, bool kMask, Into kInto>
MOESAIC_AVX512_INLINE float softmax(const Int8Step& x, std::size_t u, std::size_t seen,
                                    const float* s, std::uint8_t* p, Fetch<kInto>& fetch) {
  __mmask16 lanes[4];
  __m512 v[4];
#pragma GCC unroll 4
  for (std::size_t j = 0; j < 4; ++j) {
    v[j] = _mm512_load_ps(s + 16 * j);
    if constexpr (kMask) {
      lanes[j] = lanes16(16 * j, seen);
      v[j] = _mm512_mask_mov_ps(_mm512_set1_ps(kMasked), lanes[j], v[j]);
    }
  }
  const __m512 max = _mm512_max_ps(_mm512_max_ps(v[0], v[1]), _mm512_max_ps(v[2], v[3]));
  if (_mm512_cmp_ps_mask(max, _mm512_set1_ps(x.m[u]), _CMP_GT_OQ) != 0) rescale(x, u, max);
  const __m512 m = _mm512_set1_ps(x.m[u]);
  __m512 l = _mm512_loadu_ps(x.l + u * 16);
  __m512i most = _mm512_castps_si512(_mm512_set1_ps(1e-30F));
#pragma GCC unroll 4
  for (std::size_t j = 0; j < 4; ++j) v[j] = _mm512_sub_ps(v[j], m);
  fetch.template lines<2 * kLinesAPart<U>>();
  cpu::exp_nonpositive(v);
  fetch.template lines<2 * kLinesAPart<U>>();
#pragma GCC unroll 4
  for (std::size_t j = 0; j < 4; ++j) {
    if constexpr (kMask) v[j] = _mm512_maskz_mov_ps(lanes[j], v[j]);
    l = _mm512_add_ps(l, v[j]);
    v[j] = _mm512_mul_ps(v[j], _mm512_loadu_ps(x.value_scales() + 16 * j));
    if constexpr (kMask) v[j] = _mm512_maskz_mov_ps(lanes[j], v[j]);
    most = _mm512_max_epu32(most, _mm512_castps_si512(v[j]));
  }
  _mm512_storeu_ps(x.l + u * 16, l);
  const auto pm = std::bit_cast<float>(_mm512_reduce_max_epu32(most));
  const __m512 to_255 = _mm512_set1_ps(255.0F / pm);
  __m512i w[4];
#pragma GCC unroll 4
  for (std::size_t j = 0; j < 4; ++j) w[j] = _mm512_cvtps_epi32(_mm512_mul_ps(v[j], to_255));
  // Packing works within 128 bits: groups of four bytes come out as 0 4 8 12 | 1 5 9 13 | ...
  const __m512i bytes =
      _mm512_packus_epi16(_mm512_packus_epi32(w[0], w[1]), _mm512_packus_epi32(w[2], w[3]));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_store_si512(p, _mm512_permutexvar_epi32(order, bytes));
  return pm / 255.0F;
}

/// o += p . values of V vectors of 16 d; lines of `values` are `pitch` bytes apart.
template <std::size_t U, std::size_t V, Into kInto>
MOESAIC_AVX512 void add_values(const Int8Step& x, const std::uint8_t (*p)[kPageTokens],
                               const float* scale, const std::byte* values, std::size_t pitch,
                               float* o, Fetch<kInto>& fetch) {
  __m512i sum[U][V];
#pragma GCC unroll 6
  for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (std::size_t j = 0; j < V; ++j) sum[u][j] = _mm512_setzero_si512();
#pragma GCC unroll 1
  for (std::size_t t = 0; t < kPageTokens; t += 4, values += pitch) {
    fetch.template lines<kLinesAPart<U>>();
    __m512i line[V];
#pragma GCC unroll 4
    for (std::size_t j = 0; j < V; ++j) {
      line[j] = _mm512_loadu_si512(values + 64 * j);
    }
#pragma GCC unroll 6
    for (std::size_t u = 0; u < U; ++u) {
      const __m512i four = broadcast4(p[u] + t);
#pragma GCC unroll 4
      for (std::size_t j = 0; j < V; ++j) dot(sum[u][j], four, line[j]);
    }
  }
#pragma GCC unroll 6
  for (std::size_t u = 0; u < U; ++u)
#pragma GCC unroll 4
    for (std::size_t j = 0; j < V; ++j) {
      float* at = o + u * x.dim + 16 * j;
      _mm512_storeu_ps(at, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[u][j]), _mm512_set1_ps(scale[u]),
                                           _mm512_loadu_ps(at)));
    }
}

template <std::size_t U, Into kInto>
MOESAIC_AVX512 void step(const Int8Step& x) {
  alignas(64) float s[U][kPageTokens];
  alignas(64) std::uint8_t p[U][kPageTokens];
  float scale[U];
  Fetch<kInto> fetch(x.fetch);
  scores<U, kInto>(x, s, fetch);
  for (std::size_t u = 0; u < U; ++u) {
    const std::size_t seen = x.seen(u);
    scale[u] = seen == kPageTokens ? softmax<U, false>(x, u, seen, s[u], p[u], fetch)
                                   : softmax<U, true>(x, u, seen, s[u], p[u], fetch);
  }
  const std::byte* part = x.values();
  std::size_t d = 0;
  for (; d + kRun <= x.dim; d += kRun, part += kRun * kPageTokens)
    add_values<U, 4, kInto>(x, p, scale, part, kRun * 4, x.o + d, fetch);
  const std::size_t width = x.dim - d;
  if (width >= 48)
    add_values<U, 3, kInto>(x, p, scale, part, width * 4, x.o + d, fetch);
  else if (width >= 32)
    add_values<U, 2, kInto>(x, p, scale, part, width * 4, x.o + d, fetch);
  else if (width >= 16)
    add_values<U, 1, kInto>(x, p, scale, part, width * 4, x.o + d, fetch);
  fetch.rest();
}

template <Into kInto>
constexpr std::array<Int8StepFn, kTileUnits> steps() {
  return {step<1, kInto>, step<2, kInto>, step<3, kInto>,
          step<4, kInto>, step<5, kInto>, step<6, kInto>};
}

}  // namespace

void int8_step_avx512(const Int8Step& x) {
  static constexpr auto kNone = steps<Into::kNone>(), kL1 = steps<Into::kL1>(),
                        kL2 = steps<Into::kL2>();
  const auto& of = x.fetch.next == nullptr ? kNone : x.fetch.into_l2 ? kL2 : kL1;
  of[x.units - 1](x);
}

}  // namespace moesaic::attention_detail
