#include <immintrin.h>

#include <algorithm>
#include <cassert>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/cpu/norm_impl.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"

namespace moesaic::norm_detail {
namespace {

constexpr std::size_t kVectors = kStripes / 16;

MOESAIC_AVX512 inline float fold16(const __m512 (&acc)[kVectors]) {
  const __m512 p = _mm512_add_ps(_mm512_add_ps(acc[0], acc[2]), _mm512_add_ps(acc[1], acc[3]));
  const __m256 a = _mm256_add_ps(_mm512_castps512_ps256(p), _mm512_extractf32x8_ps(p, 1));
  const __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  const __m128 c = _mm_add_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_add_ss(c, _mm_shuffle_ps(c, c, 1)));
}

/// y[r][i] = dot(a[r], b[i]): rows and columns share their loads.
template <std::size_t kRows, std::size_t kColumns>
MOESAIC_AVX512 inline void dot_block(const float* const* a, const float* const* b, std::size_t n,
                                     float (*y)[kColumns]) {
  __m512 acc[kRows][kColumns][kVectors];
#pragma GCC unroll 3
  for (auto& row : acc)
#pragma GCC unroll 2
    for (auto& column : row)
#pragma GCC unroll 4
      for (auto& v : column) v = _mm512_setzero_ps();
  std::size_t k = 0;
  for (; k + kStripes <= n; k += kStripes)
#pragma GCC unroll 4
    for (std::size_t v = 0; v < kVectors; ++v) {
      __m512 x[kColumns];
#pragma GCC unroll 2
      for (std::size_t i = 0; i < kColumns; ++i) x[i] = _mm512_loadu_ps(b[i] + k + 16 * v);
#pragma GCC unroll 3
      for (std::size_t r = 0; r < kRows; ++r) {
        const __m512 u = _mm512_loadu_ps(a[r] + k + 16 * v);
#pragma GCC unroll 2
        for (std::size_t i = 0; i < kColumns; ++i)
          acc[r][i][v] = _mm512_fmadd_ps(u, x[i], acc[r][i][v]);
      }
    }
#pragma GCC unroll 4
  for (std::size_t v = 0; v < kVectors; ++v) {
    const __mmask16 m = lanes16(k + 16 * v, n);
    if (m == 0) break;
#pragma GCC unroll 3
    for (std::size_t r = 0; r < kRows; ++r)
#pragma GCC unroll 2
      for (std::size_t i = 0; i < kColumns; ++i)
        acc[r][i][v] =
            _mm512_mask3_fmadd_ps(_mm512_maskz_loadu_ps(m, a[r] + k + 16 * v),
                                  _mm512_maskz_loadu_ps(m, b[i] + k + 16 * v), acc[r][i][v], m);
  }
#pragma GCC unroll 3
  for (std::size_t r = 0; r < kRows; ++r)
#pragma GCC unroll 2
    for (std::size_t i = 0; i < kColumns; ++i) y[r][i] = fold16(acc[r][i]);
}

MOESAIC_AVX512 float dot(const float* a, const float* b, std::size_t n) {
  float y[1][1];
  dot_block<1, 1>(&a, &b, n, y);
  return y[0][0];
}

template <std::size_t kRows>
MOESAIC_AVX512 void dots_of(const float* const* a, const float* b, std::size_t count, std::size_t n,
                            float* const* y) {
  // One column of each half: two streams through memory that go on from column to column.
  const std::size_t half = count / 2;
  for (std::size_t i = 0; i < half; ++i) {
    const float* pair[2] = {b + i * n, b + (half + i) * n};
    float found[kRows][2];
    dot_block<kRows, 2>(a, pair, n, found);
    for (std::size_t r = 0; r < kRows; ++r) y[r][i] = found[r][0], y[r][half + i] = found[r][1];
  }
  if (count % 2 != 0)
    for (std::size_t r = 0; r < kRows; ++r) y[r][count - 1] = dot(a[r], b + (count - 1) * n, n);
}

/// Vector v of the stripes of dots of kDotRows rows and kColumns columns: acc[r][i].
/// @param a [n / 64, up][kDotRows][16], what the vector takes of the rows
template <std::size_t kColumns>
MOESAIC_AVX512 inline void stripe_block(const float* a, const float* b, std::size_t n,
                                        std::size_t v, __m512 (&acc)[kDotRows][kColumns]) {
#pragma GCC unroll 6
  for (auto& row : acc)
#pragma GCC unroll 4
    for (auto& sum : row) sum = _mm512_setzero_ps();
  std::size_t k = 16 * v;
  for (; k + 16 <= n; k += kStripes, a += kDotRows * 16) {
    __m512 x[kColumns];
#pragma GCC unroll 4
    for (std::size_t i = 0; i < kColumns; ++i) x[i] = _mm512_loadu_ps(b + i * n + k);
#pragma GCC unroll 6
    for (std::size_t r = 0; r < kDotRows; ++r) {
      const __m512 u = _mm512_load_ps(a + r * 16);
#pragma GCC unroll 4
      for (std::size_t i = 0; i < kColumns; ++i) acc[r][i] = _mm512_fmadd_ps(u, x[i], acc[r][i]);
    }
  }
  const __mmask16 m = lanes16(k, n);
  if (m == 0) return;
#pragma GCC unroll 6
  for (std::size_t r = 0; r < kDotRows; ++r)
#pragma GCC unroll 4
    for (std::size_t i = 0; i < kColumns; ++i)
      acc[r][i] = _mm512_mask3_fmadd_ps(_mm512_load_ps(a + r * 16),
                                        _mm512_maskz_loadu_ps(m, b + i * n + k), acc[r][i], m);
}

/// `dots` of kDotRows rows, one vector of the stripes after the
/// other: what of the rows it takes, copied together, stays in L1 while the columns pass by.
MOESAIC_AVX512 void dots_of_many(const float* const* a, const float* b, std::size_t count,
                                 std::size_t n, float* const* y) {
  constexpr std::size_t kColumns = 4;
  const std::size_t lines = (n + kStripes - 1) / kStripes;
  thread_local AlignedVector<float> memory;
  memory.resize(std::max(memory.size(), lines * kDotRows * 16));
  float* const rows = memory.data();
  __m512 sums[kDotColumns][kDotRows][kVectors];
  const auto run_columns = [&]<std::size_t kCount>(std::size_t i, std::size_t v)
                               MOESAIC_AVX512_LAMBDA {
                                 __m512 acc[kDotRows][kCount];
                                 stripe_block(rows, b + i * n, n, v, acc);
                                 for (std::size_t c = 0; c < kCount; ++c)
                                   for (std::size_t r = 0; r < kDotRows; ++r)
                                     sums[i + c][r][v] = acc[r][c];
                               };
  for (std::size_t v = 0; v < kVectors; ++v) {
    for (std::size_t line = 0; line < lines; ++line)
      for (std::size_t r = 0; r < kDotRows; ++r) {
        const std::size_t k = line * kStripes + 16 * v;
        _mm512_store_ps(rows + (line * kDotRows + r) * 16,
                        _mm512_maskz_loadu_ps(lanes16(k, n), a[r] + k));
      }
    std::size_t i = 0;
    for (; i + kColumns <= count; i += kColumns) run_columns.template operator()<kColumns>(i, v);
    for (; i < count; ++i) run_columns.template operator()<1>(i, v);
  }
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t r = 0; r < kDotRows; ++r) y[r][i] = fold16(sums[i][r]);
}

MOESAIC_AVX512 void dots(const float* const* a, std::size_t rows, const float* b, std::size_t count,
                         std::size_t n, float* const* y) {
  assert(count <= kDotColumns);
  if (rows == kDotRows) return dots_of_many(a, b, count, n, y);
  for (; rows >= 3; rows -= 3, a += 3, y += 3) dots_of<3>(a, b, count, n, y);
  if (rows == 2) return dots_of<2>(a, b, count, n, y);
  if (rows == 1) dots_of<1>(a, b, count, n, y);
}

MOESAIC_AVX512 float sum(const float* a, std::size_t n) {
  __m512 acc[kVectors];
  for (auto& v : acc) v = _mm512_setzero_ps();
  std::size_t k = 0;
  for (; k + kStripes <= n; k += kStripes)
    for (std::size_t v = 0; v < kVectors; ++v)
      acc[v] = _mm512_add_ps(acc[v], _mm512_loadu_ps(a + k + 16 * v));
  for (std::size_t v = 0; k < n && v < kVectors; ++v) {
    const __mmask16 m = lanes16(k + 16 * v, n);
    acc[v] = _mm512_mask_add_ps(acc[v], m, acc[v], _mm512_maskz_loadu_ps(m, a + k + 16 * v));
  }
  return fold16(acc);
}

MOESAIC_AVX512 float deviation(const float* x, float mean, std::size_t n) {
  __m512 acc[kVectors];
  for (auto& v : acc) v = _mm512_setzero_ps();
  const __m512 mu = _mm512_set1_ps(mean);
  std::size_t k = 0;
  for (; k + kStripes <= n; k += kStripes)
    for (std::size_t v = 0; v < kVectors; ++v) {
      const __m512 d = _mm512_sub_ps(_mm512_loadu_ps(x + k + 16 * v), mu);
      acc[v] = _mm512_fmadd_ps(d, d, acc[v]);
    }
  for (std::size_t v = 0; k < n && v < kVectors; ++v) {
    const __mmask16 m = lanes16(k + 16 * v, n);
    const __m512 d = _mm512_sub_ps(_mm512_maskz_loadu_ps(m, x + k + 16 * v), mu);
    acc[v] = _mm512_mask3_fmadd_ps(d, d, acc[v], m);
  }
  return fold16(acc);
}

MOESAIC_AVX512 void apply(const float* x, float mean, float inv, const float* weight,
                          const float* bias, std::size_t n, bool round, float* y_f32,
                          Bf16* y_bf16) {
  const __m512 mu = _mm512_set1_ps(mean), scale = _mm512_set1_ps(inv);
  for (std::size_t c = 0; c < n; c += 16) {
    const __mmask16 m = lanes16(c, n);
    const __m512 centred = _mm512_sub_ps(_mm512_maskz_loadu_ps(m, x + c), mu);
    __m512 y = _mm512_mul_ps(_mm512_mul_ps(centred, scale), _mm512_maskz_loadu_ps(m, weight + c));
    if (bias) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(m, bias + c));
    store_row16(y, m, c, round, y_f32, y_bf16);
  }
}

}  // namespace

const Level kAvx512 = {dot, dots, sum, deviation, apply};

}  // namespace moesaic::norm_detail
