#include "common/kernels/cpu/attention_vision_tiles.hpp"

#include <immintrin.h>

#include <algorithm>
#include <cmath>

#include "common/kernels/cpu/amx.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"

namespace moesaic::attention_detail {
namespace {

/// The vector with the halves of its pairs turned, as `rope_vision`; y has kMostTileDim values.
MOESAIC_AMX_INLINE const float* rotated(const VisionRows& in, std::size_t patch, const float* x,
                                        float* y) {
  if (in.cos == nullptr) return x;
  const std::size_t half = in.head_dim / 2;
  const float* cos = in.cos + patch * half;
  const float* sin = in.sin + patch * half;
  for (std::size_t d = 0; d < half; d += 16) {
    const __mmask16 m = lanes16(d, half);
    const __m512 a = _mm512_maskz_loadu_ps(m, x + d), b = _mm512_maskz_loadu_ps(m, x + half + d);
    const __m512 c = _mm512_maskz_loadu_ps(m, cos + d), s = _mm512_maskz_loadu_ps(m, sin + d);
    _mm512_mask_storeu_ps(y + d, m, _mm512_sub_ps(_mm512_mul_ps(a, c), _mm512_mul_ps(b, s)));
    _mm512_mask_storeu_ps(y + half + d, m, _mm512_add_ps(_mm512_mul_ps(b, c), _mm512_mul_ps(a, s)));
  }
  return y;
}

/// 32 values of a row from d on as bf16, zeros beyond the head size.
MOESAIC_AMX_INLINE __m512i bf16_line(const float* x, std::size_t d, std::size_t head_dim,
                                     __m512 scale, bool scaled) {
  __m512 low = _mm512_maskz_loadu_ps(lanes16(d, head_dim), x + d);
  __m512 high = _mm512_maskz_loadu_ps(lanes16(d + 16, head_dim), x + d + 16);
  if (scaled) {
    low = _mm512_mul_ps(low, scale);
    high = _mm512_mul_ps(high, scale);
  }
  return _mm512_inserti64x4(_mm512_castsi256_si512(to_bf16x16(low)), to_bf16x16(high), 1);
}

/// Sixteen rows of 16 words, turned over: word j of row i becomes word i of row j.
MOESAIC_AMX void transpose16(const std::byte* from, std::size_t stride, std::byte* to) {
  __m512i a[16], b[16];
  for (int i = 0; i < 16; ++i)
    a[i] = _mm512_load_si512(from + static_cast<std::size_t>(i) * stride);
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
    b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
    a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
    a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
    a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
  }
  // a[4 r + c] holds words c, c + 4, c + 8, c + 12 of rows 4 r .. 4 r + 3, one in each quarter.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i low = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88);
    const __m512i high = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xdd);
    const __m512i low2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88);
    const __m512i high2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xdd);
    _mm512_store_si512(to + c * 64, _mm512_shuffle_i32x4(low, low2, 0x88));
    _mm512_store_si512(to + (c + 4) * 64, _mm512_shuffle_i32x4(high, high2, 0x88));
    _mm512_store_si512(to + (c + 8) * 64, _mm512_shuffle_i32x4(low, low2, 0xdd));
    _mm512_store_si512(to + (c + 12) * 64, _mm512_shuffle_i32x4(high, high2, 0xdd));
  }
}

}  // namespace

MOESAIC_AMX void pack_vision_block(const VisionHeadLayout& layout, const VisionRows& in,
                                   std::size_t block, std::byte* memory, std::byte* rows) {
  const std::size_t steps = layout.score_steps, row_bytes = steps * 64;
  const __m512 scale = _mm512_set1_ps(1.0F / std::sqrt(static_cast<float>(in.head_dim)));
  alignas(64) float turned[kMostTileDim];
  for (std::size_t t = 0; t < 32; t += 2) {
    const std::size_t patch = block * 32 + t;
    const std::size_t there = patch < in.patches ? std::min<std::size_t>(2, in.patches - patch) : 0;
    for (std::size_t head = 0; head < in.heads; ++head) {
      std::byte* const tiles = memory + head * layout.bytes();
      for (std::size_t i = 0; i < 2; ++i) {
        const std::size_t row = t + i;
        std::byte* q =
            tiles + block * layout.pair_bytes() + row / 16 * steps * kTileBytes + row % 16 * 64;
        std::byte* k = rows + (head * 32 + row) * row_bytes;
        if (i >= there) {
          for (std::size_t s = 0; s < steps; ++s) {
            _mm512_store_si512(q + s * kTileBytes, _mm512_setzero_si512());
            _mm512_store_si512(k + s * 64, _mm512_setzero_si512());
          }
          continue;
        }
        const float* x = rotated(in, patch + i, in.at(patch + i, 0, head), turned);
        for (std::size_t s = 0; s < steps; ++s)
          _mm512_store_si512(q + s * kTileBytes, bf16_line(x, s * 32, in.head_dim, scale, true));
        x = rotated(in, patch + i, in.at(patch + i, 1, head), turned);
        for (std::size_t s = 0; s < steps; ++s)
          _mm512_store_si512(k + s * 64, bf16_line(x, s * 32, in.head_dim, scale, false));
      }
      std::byte* v = tiles + layout.values_offset() + block * layout.value_bytes() + t / 2 * 64;
      for (std::size_t d = 0; d < layout.value_tiles; ++d) {
        __m512i pair = _mm512_setzero_si512();
        const __mmask16 m = lanes16(d * 16, in.head_dim);
        if (there > 0) pair = bf16_bits16(_mm512_maskz_loadu_ps(m, in.at(patch, 2, head) + d * 16));
        if (there > 1)
          pair = _mm512_or_si512(
              pair,
              _mm512_slli_epi32(
                  bf16_bits16(_mm512_maskz_loadu_ps(m, in.at(patch + 1, 2, head) + d * 16)), 16));
        _mm512_store_si512(v + d * kTileBytes, pair);
      }
    }
  }
  for (std::size_t head = 0; head < in.heads; ++head) {
    std::byte* const keys =
        memory + head * layout.bytes() + layout.keys_offset() + block * layout.pair_bytes();
    for (std::size_t s = 0; s < steps; ++s)
      for (std::size_t half = 0; half < 2; ++half)
        transpose16(rows + (head * 32 + half * 16) * row_bytes + s * 64, row_bytes,
                    keys + (s * 2 + half) * kTileBytes);
  }
}

}  // namespace moesaic::attention_detail
