#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "common/kernels/ccq_layout.hpp"
#include "common/kernels/cpu/linear_level.hpp"
#include "common/kernels/cpu/targets.hpp"

// Integer products with vpmaddwd: weights are decoded to 16 bits, a K block of a panel at a time,
// into L1, for all rows. vpmaddubsw would saturate, but for raw 4-bit codes: one row of w4r takes
// it.

namespace moesaic::cpu {
namespace {

constexpr std::size_t kBlockBytes = 1088;
/// Decoded 16-bit values of 64 k x 32 rows: [32 pairs of k][32 rows][2].
constexpr std::size_t kTileValues = 64 * 32;

MOESAIC_AVX2_INLINE __m256i load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
MOESAIC_AVX2_INLINE __m256i load(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
MOESAIC_AVX2_INLINE void store(std::int16_t* p, __m256i v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
}

/// 8 rows x 4 k of signed bytes become two pairs of k: out[0 ..] and out[64 ..].
MOESAIC_AVX2_INLINE void store_quad(__m256i bytes, std::int16_t* out) {
  // Within a 32-bit lane: bytes 0, 1 to the first pair, 2, 3 to the second, sign-extended.
  const __m256i low = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);  // bytes 0 and 2
  const __m256i high = _mm256_srai_epi16(bytes, 8);                       // bytes 1 and 3
  const __m256i mask = _mm256_set1_epi32(0xffff);
  const __m256i first = _mm256_or_si256(_mm256_and_si256(low, mask), _mm256_slli_epi32(high, 16));
  const __m256i second =
      _mm256_or_si256(_mm256_srli_epi32(low, 16), _mm256_andnot_si256(mask, high));
  store(out, first);
  store(out + 64, second);
}

/// 64 k of a w8r panel.
MOESAIC_AVX2 void unpack_w8r(const std::byte* panel, std::size_t q, std::int16_t* out) {
  const std::byte* block = panel + 128 + q * 2048;
  for (std::size_t l = 0; l < 16; ++l)
    for (std::size_t r = 0; r < 4; ++r)
      store_quad(load(block + l * 128 + r * 32), out + l * 128 + r * 16);
}

MOESAIC_AVX2 void unpack_w4r(const std::byte* panel, std::size_t q, std::int16_t* out) {
  const std::byte* block = panel + 128 + q * kBlockBytes;
  const __m256i nibble = _mm256_set1_epi8(15);
  for (std::size_t r = 0; r < 4; ++r) {  // 8 rows at a time
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 16 * r));
    __m256i words = _mm256_cvtepu16_epi32(halves);
    words = _mm256_or_si256(words, _mm256_slli_epi32(words, 16));
    for (int j = 0; j < 4; ++j) {
      const __m256i m = _mm256_and_si256(_mm256_srl_epi16(words, _mm_cvtsi32_si128(4 * j)),
                                         _mm256_set1_epi16(15));
      const __m256i base = _mm256_mullo_epi16(_mm256_set1_epi8(8), m);
      for (int o = 0; o < 2; ++o) {
        const std::size_t octet = static_cast<std::size_t>(2 * j + o);
        const __m256i c = load(block + 64 + octet * 128 + r / 2 * 64 + r % 2 * 32);
        const __m256i lo = _mm256_mullo_epi16(_mm256_and_si256(c, nibble), m);
        const __m256i hi = _mm256_mullo_epi16(_mm256_and_si256(_mm256_srli_epi16(c, 4), nibble), m);
        store_quad(_mm256_sub_epi8(lo, base), out + octet * 256 + r * 16);
        store_quad(_mm256_sub_epi8(hi, base), out + octet * 256 + 128 + r * 16);
      }
    }
  }
}

MOESAIC_AVX2 void unpack_ccq2(const std::byte* panel, std::size_t q, std::int16_t* out) {
  const std::byte* block = panel + 384 + q / 2 * kBlockBytes;
  const std::byte* words = block + 64 + q % 2 * 512;
  for (std::size_t r = 0; r < 4; ++r) {
    const auto* constants = reinterpret_cast<const float*>(panel + 128) + 8 * r;
    const __m256 scale = _mm256_loadu_ps(constants), zero = _mm256_loadu_ps(constants + 32);
    const __m256i l = _mm256_cvtepu8_epi32(
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block + q % 2 * 32 + 8 * r)));
    const __m256i l2 = _mm256_or_si256(l, _mm256_slli_epi32(l, 16));
    for (std::size_t w = 0; w < 16; ++w) {
      const __m256i b = _mm256_cvtepu8_epi32(
          _mm_loadl_epi64(reinterpret_cast<const __m128i*>(words + w * 32 + 8 * r)));
      // Never fused: floor(b * scale + zero + 0.5), each step rounded.
      __m256 v = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(b), scale), zero);
      v = _mm256_floor_ps(_mm256_add_ps(v, _mm256_set1_ps(0.5F)));
      const __m256i c = _mm256_cvtps_epi32(v);
      const __m256i level = _mm256_set1_epi32(63), centre = _mm256_set1_epi16(32);
      const auto pair = [&](int even, int odd) MOESAIC_AVX2_LAMBDA {
        const __m256i low = _mm256_and_si256(_mm256_srl_epi32(c, _mm_cvtsi32_si128(even)), level);
        const __m256i top = _mm256_and_si256(_mm256_srl_epi32(c, _mm_cvtsi32_si128(odd)), level);
        const __m256i both = _mm256_or_si256(low, _mm256_slli_epi32(top, 16));
        return _mm256_mullo_epi16(_mm256_sub_epi16(both, centre), l2);
      };
      store(out + w * 128 + r * 16, pair(9, 6));
      store(out + w * 128 + 64 + r * 16, pair(3, 0));
    }
  }
}

/// CCQ-2.5 and CCQ-2.75: each level is a window of a 32-bit word of its row.
template <LevelPlace (*kPlace)(std::size_t k), int kBits>
struct Windows {
  /// Word of 8 rows, of which r is the first's eighth.
  template <int kWord>
  MOESAIC_AVX2_INLINE static __m256i word(const std::byte* block, std::size_t r) {
    if constexpr (kWord == 5)
      return _mm256_cvtepu16_epi32(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 640 + 16 * r)));
    else
      return load(block + 128 * kWord + 32 * r);
  }
  /// The level of k in the low half of a lane (k even) or the high half.
  template <std::size_t k>
  MOESAIC_AVX2_INLINE static __m256i level(const std::byte* block, std::size_t r) {
    constexpr LevelPlace place = kPlace(k);
    constexpr int half = k % 2 * 16, up = half - place.bit;
    const __m256i w = word<place.word>(block, r);
    const __m256i moved =
        up > 0 ? _mm256_slli_epi32(w, up > 0 ? up : 0) : _mm256_srli_epi32(w, up < 0 ? -up : 0);
    return _mm256_and_si256(moved, _mm256_set1_epi32(((1 << kBits) - 1) << half));
  }
  template <std::size_t k>
  MOESAIC_AVX2_INLINE static void pair(const std::byte* block, std::size_t r, __m256i mult,
                                       std::int16_t* out) {
    const __m256i both = _mm256_or_si256(level<k>(block, r), level<k + 1>(block, r));
    const __m256i centred = _mm256_sub_epi16(both, _mm256_set1_epi16(1 << (kBits - 1)));
    store(out + k * 32 + r * 16, _mm256_mullo_epi16(centred, mult));
  }
  template <std::size_t... i>
  MOESAIC_AVX2_INLINE static void pairs(const std::byte* block, std::size_t r, __m256i l,
                                        std::int16_t* out, std::index_sequence<i...>) {
    const __m256i mult = _mm256_or_si256(l, _mm256_slli_epi32(l, 16));
    (pair<2 * i>(block, r, mult, out), ...);
  }
};

MOESAIC_AVX2 void unpack_ccq25(const std::byte* panel, std::size_t q, std::int16_t* out) {
  using Rows = Windows<ccq25_place, 3>;
  const std::byte* block = panel + 128 + q * kCcq25BlockBytes;
  for (std::size_t r = 0; r < 4; ++r) {
    const __m256i l =
        _mm256_and_si256(_mm256_srli_epi32(Rows::word<4>(block, r), 16), _mm256_set1_epi32(0x1FFF));
    Rows::pairs(block, r, l, out, std::make_index_sequence<32>());
  }
}

MOESAIC_AVX2 void unpack_ccq275(const std::byte* panel, std::size_t q, std::int16_t* out) {
  using Rows = Windows<ccq275_place, 4>;
  const std::byte* block = panel + 128 + q * kCcq275BlockBytes;
  for (std::size_t r = 0; r < 4; ++r) {
    const __m256i l =
        _mm256_and_si256(_mm256_srli_epi32(Rows::word<5>(block, r), 8), _mm256_set1_epi32(15));
    Rows::pairs(block, r, l, out, std::make_index_sequence<32>());
  }
}

using Unpack = void (*)(const std::byte* panel, std::size_t q, std::int16_t* out);
Unpack unpack_for(WeightFormat format) {
  switch (format) {
    case WeightFormat::kW8r:
      return unpack_w8r;
    case WeightFormat::kW4r:
      return unpack_w4r;
    case WeightFormat::kCcq25:
      return unpack_ccq25;
    case WeightFormat::kCcq275:
      return unpack_ccq275;
    default:
      return unpack_ccq2;
  }
}

MOESAIC_AVX2_INLINE __m256 add_block(__m256i sum, float scale, __m256 acc, bool first) {
  const __m256 value = _mm256_cvtepi32_ps(sum), s = _mm256_set1_ps(scale);
  return first ? _mm256_mul_ps(value, s) : _mm256_fmadd_ps(value, s, acc);
}

/// T rows by 16 of the 32 rows of a decoded block.
template <int T>
MOESAIC_AVX2 void tile(const std::int16_t* weights, std::size_t cols, const std::int16_t* x,
                       const float* scales, float* c, bool first) {
  __m256i a[T][2];
#pragma GCC unroll 5
  for (int t = 0; t < T; ++t) a[t][0] = a[t][1] = _mm256_setzero_si256();
  for (std::size_t k = 0; k < cols; k += 2, weights += 64) {
    const __m256i w0 = load(weights), w1 = load(weights + 16);
#pragma GCC unroll 5
    for (int t = 0; t < T; ++t) {
      int pair;
      std::memcpy(&pair, x + static_cast<std::size_t>(t) * cols + k, sizeof pair);
      const __m256i v = _mm256_set1_epi32(pair);
      a[t][0] = _mm256_add_epi32(a[t][0], _mm256_madd_epi16(w0, v));
      a[t][1] = _mm256_add_epi32(a[t][1], _mm256_madd_epi16(w1, v));
    }
  }
#pragma GCC unroll 5
  for (int t = 0; t < T; ++t)
    for (int h = 0; h < 2; ++h) {
      float* out = c + t * 32 + 8 * h;
      _mm256_storeu_ps(out, add_block(a[t][h], scales[t], _mm256_loadu_ps(out), first));
    }
}

using Tile = void (*)(const std::int16_t*, std::size_t, const std::int16_t*, const float*, float*,
                      bool);
constexpr std::array<Tile, 5> kTiles = {tile<1>, tile<2>, tile<3>, tile<4>, tile<5>};

/// Values of T rows of a block as 16 bits: out[t][block].
MOESAIC_AVX2 void widen_rows(const RowLayout& layout, const std::byte* x, std::size_t row,
                             std::size_t rows, std::size_t k0, std::int16_t* out) {
  for (std::size_t t = 0; t < rows; ++t)
    for (std::size_t k = 0; k < layout.block; k += 16, out += 16) {
      const std::byte* from = x + layout.value_offset(row + t, k0 + k);
      store(out, _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
    }
}

MOESAIC_AVX2 void scale_rows(const std::byte* panel, std::size_t rows, float* c) {
  const auto* scale = reinterpret_cast<const float*>(panel);
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t n = 0; n < 32; n += 8) {
      float* out = c + r * 32 + n;
      _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_loadu_ps(out), _mm256_loadu_ps(scale + n)));
    }
}

void run_through_l1(const IntegerJob& job) {
  const RowLayout& layout = *job.layout;
  const std::size_t rows = job.last_row - job.first_row, ld = layout.padded_rows();
  const std::size_t steps = layout.block / 64, blocks = layout.padded_cols / layout.block;
  const std::size_t parts = (rows + kTiles.size() - 1) / kTiles.size();
  const auto unpack = unpack_for(job.w->format);
  auto* const weights = reinterpret_cast<std::int16_t*>(
      integer_scratch(steps * kTileValues * 2 + rows * layout.padded_cols * 2 + rows * 32 * 4));
  std::int16_t* const wide = weights + steps * kTileValues;
  auto* const c = reinterpret_cast<float*>(wide + rows * layout.padded_cols);
  for (std::size_t b = 0; b < blocks; ++b)
    widen_rows(layout, job.x, job.first_row, rows, b * layout.block,
               wide + b * rows * layout.block);
  for (std::size_t p = job.first_panel; p < job.last_panel; ++p) {
    const std::byte* panel = job.w->data + p * job.w->panel_bytes();
    for (std::size_t b = 0; b < blocks; ++b) {
      for (std::size_t q = 0; q < steps; ++q)
        unpack(panel, b * steps + q, weights + q * kTileValues);
      for (std::size_t i = 0; i < parts; ++i) {
        const std::size_t first = i * rows / parts, count = (i + 1) * rows / parts - first;
        const std::int16_t* x = wide + (b * rows + first) * layout.block;
        const float* scales = layout.scales(job.x) + b * ld + job.first_row + first;
        for (std::size_t h = 0; h < 2; ++h)
          kTiles[count - 1](weights + h * 32, layout.block, x, scales, c + first * 32 + h * 16,
                            b == 0);
      }
    }
    scale_rows(panel, rows, c);
    job.sink->take(p, job.first_row, rows, c, 32);
  }
}

/// One row of w4r: raw codes (0..15) times int8 in pairs is at most 3810, and four such pairs fit
/// 16 bits.
MOESAIC_AVX2 void panel_w4r(const IntegerJob& job, const std::byte* panel, float* c) {
  const RowLayout& layout = *job.layout;
  const std::int32_t* sums = layout.sums16(job.x);
  const float* scales = layout.scales(job.x);
  const __m256i nibble = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  const std::byte* block = panel + 128;
  const std::byte* x = job.x;
  const std::size_t steps = layout.block / 64, ahead = streams(StreamsOf::kRow).ahead;
  for (std::size_t b = 0; b < layout.padded_cols / layout.block; ++b) {
    __m256i a[4];
    for (auto& sum : a) sum = _mm256_setzero_si256();
    for (std::size_t i = 0; i < steps; ++i, block += kBlockBytes, x += 64, sums += 4) {
#pragma GCC unroll 17
      for (std::size_t o = 0; o < kBlockBytes; o += 64)
        _mm_prefetch(block + ahead + o, _MM_HINT_T0);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        __m256i v[4];
#pragma GCC unroll 4
        for (int o = 0; o < 4; ++o) {
          int quad;
          std::memcpy(&quad, x + j * 16 + o * 4, sizeof quad);
          v[o] = _mm256_set1_epi32(quad);
        }
        const __m256i base = _mm256_set1_epi32(-8 * sums[j]);
#pragma GCC unroll 4
        for (std::size_t r = 0; r < 4; ++r) {
          const std::byte* line = block + 64 + static_cast<std::size_t>(2 * j) * 128 + r * 32;
          const __m256i c0 = load(line), c1 = load(line + 128);
          const __m256i s0 = _mm256_add_epi16(
              _mm256_maddubs_epi16(_mm256_and_si256(c0, nibble), v[0]),
              _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(c0, 4), nibble), v[1]));
          const __m256i s1 = _mm256_add_epi16(
              _mm256_maddubs_epi16(_mm256_and_si256(c1, nibble), v[2]),
              _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(c1, 4), nibble), v[3]));
          const __m256i sum =
              _mm256_add_epi32(_mm256_madd_epi16(_mm256_add_epi16(s0, s1), ones), base);
          const __m256i words = _mm256_cvtepu16_epi32(
              _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 16 * r)));
          const __m256i m =
              _mm256_and_si256(_mm256_srli_epi32(words, 4 * j), _mm256_set1_epi32(15));
          a[r] = _mm256_add_epi32(a[r], _mm256_mullo_epi32(sum, m));
        }
      }
    }
    for (int r = 0; r < 4; ++r) {
      float* out = c + 8 * r;
      _mm256_storeu_ps(out, add_block(a[r], scales[b], _mm256_loadu_ps(out), b == 0));
    }
  }
  scale_rows(panel, 1, c);
}

void run(const IntegerJob& job) {
  if (job.first_row == job.last_row) return;
  if (job.layout->rows > 1 || job.w->format != WeightFormat::kW4r) return run_through_l1(job);
  alignas(64) float c[32];
  for (std::size_t p = job.first_panel; p < job.last_panel; ++p) {
    panel_w4r(job, job.w->data + p * job.w->panel_bytes(), c);
    job.sink->take(p, 0, 1, c, 32);
  }
}

/// The largest magnitude of n values, as bits.
MOESAIC_AVX2 std::uint32_t largest_bits(const float* x, std::size_t n) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i most = _mm256_setzero_si256();
  std::size_t k = 0;
  for (; k + 8 <= n; k += 8)
    most = _mm256_max_epu32(
        most, _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + k)), magnitude));
  alignas(32) std::uint32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), most);
  std::uint32_t largest = *std::max_element(lanes, lanes + 8);
  for (; k < n; ++k) largest = std::max(largest, std::bit_cast<std::uint32_t>(x[k]) & 0x7fffffffU);
  return largest;
}

MOESAIC_AVX2 float quantize(const float* x, std::size_t cols, std::size_t block, std::int8_t* q,
                            std::size_t stride) {
  const BlockScale scale = block_scale(largest_bits(x, cols));
  const std::size_t some = scale.inverse > 0 ? cols : 0;
  const __m256 inverse = _mm256_set1_ps(scale.inverse);
  for (std::size_t first = 0; first < block; first += 64, q += stride, x += 64) {
    const std::size_t piece = std::min<std::size_t>(64, block - first);
    const std::size_t real = std::min(piece, some - std::min(some, first));
    std::size_t k = 0;
    for (; k + 8 <= real; k += 8) {
      const __m256i v = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + k), inverse));
      const __m128i words =
          _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
      _mm_storel_epi64(reinterpret_cast<__m128i*>(q + k), _mm_packs_epi16(words, words));
    }
    for (; k < real; ++k)
      q[k] = static_cast<std::int8_t>(_mm_cvtss_si32(_mm_set_ss(x[k] * scale.inverse)));
    std::fill(q + real, q + piece, std::int8_t{0});
  }
  return scale.scale;
}

}  // namespace

const IntegerLevel kIntegerAvx2 = {quantize, run};

}  // namespace moesaic::cpu
