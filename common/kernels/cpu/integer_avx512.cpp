#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "common/kernels/cpu/finished_panel.hpp"
#include "common/kernels/cpu/integer_formats.hpp"
#include "common/kernels/cpu/integer_formats_ccq.hpp"
#include "common/kernels/cpu/linear_level.hpp"
#include "common/kernels/cpu/targets.hpp"

// Integer products with vpdpbusd, which multiplies unsigned by signed bytes: weights are raised by
// 128 (CCQ levels are unsigned anyway), activations are as they are, and 128 times their sum is
// what an accumulator starts below zero.

namespace moesaic::cpu {
namespace {

/// gcc 12 copies and spills around the builtin once there are many accumulators.
MOESAIC_AVX512_INLINE __m512i dot(__m512i sum, __m512i u8, __m512i s8) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u8), "v"(s8));
  return sum;
}
MOESAIC_AVX512_INLINE __m512i broadcast4(const void* p) {
  int v;
  std::memcpy(&v, p, sizeof v);
  return _mm512_set1_epi32(v);
}
template <bool kIntoL2 = false>
MOESAIC_AVX512_INLINE void fetch(const std::byte* p) {
  _mm_prefetch(p, kIntoL2 ? _MM_HINT_T1 : _MM_HINT_T0);
}

// ---------------------------------------------------------------- one row to twelve: in registers

/// Sums of one block become sums so far.
MOESAIC_AVX512_INLINE __m512 add_block(__m512i sum, float scale, __m512 acc, bool first) {
  const __m512 value = _mm512_cvtepi32_ps(sum), s = _mm512_set1_ps(scale);
  return first ? _mm512_mul_ps(value, s) : _mm512_fmadd_ps(value, s, acc);
}

/// Rows [row, row + T) of a tile by S panels, `apart` bytes from each to the next, side by side:
/// c[t][32 s ..].
template <class Format, bool kIntoL2, int T, int S>
MOESAIC_AVX512 void tile_registers(const IntegerJob& job, const std::byte* panel, std::size_t apart,
                                   std::size_t row, std::size_t ahead, float* c) {
  const RowLayout& layout = *job.layout;
  const std::size_t ld = layout.padded_rows(), chunk = layout.chunk();
  const std::size_t steps = layout.block / 64;
  const float* scales = layout.scales(job.x) + row;
  const std::int32_t* sums =
      (Format::kGroupScale ? layout.sums64(job.x) : layout.sums(job.x)) + row;
  const std::byte* x = job.x + layout.value_offset(row, 0);
  for (std::size_t b = 0; b < layout.padded_cols / layout.block; ++b) {
    __m512i a[S][T][2], total[S][Format::kGroupScale ? T : 1][2];
    if constexpr (!Format::kGroupScale) {
#pragma GCC unroll 12
      for (int t = 0; t < T; ++t) {
        const __m512i start = _mm512_set1_epi32(-Format::kZero * sums[b * ld + t]);
#pragma GCC unroll 4
        for (int s = 0; s < S; ++s) a[s][t][0] = a[s][t][1] = start;
      }
    }
    for (std::size_t i = 0; i < steps; ++i, x += chunk) {
      const std::size_t q = b * steps + i;
      if constexpr (Format::kGroupScale) {
#pragma GCC unroll 12
        for (int t = 0; t < T; ++t) {
          const __m512i start = _mm512_set1_epi32(-Format::kZero * sums[q * ld + t]);
#pragma GCC unroll 4
          for (int s = 0; s < S; ++s) a[s][t][0] = a[s][t][1] = start;
        }
      }
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s) {
        const std::byte* p = panel + s * apart;
        const std::byte* block = Format::block(p, q);
        // Blocks of kCcq2 are two of these steps.
        const std::byte* next =
            block + ahead + (std::is_same_v<Format, Ccq2> && q % 2 != 0 ? 544 : 0);
        if (Format::kBytes % 1024 != 0) fetch<kIntoL2>(next + Format::kBytes - 64);
        Format::lines(block, p, q,
                      [&](std::size_t l, __m512i w0, __m512i w1) MOESAIC_AVX512_LAMBDA {
#pragma GCC unroll 2
                        for (std::size_t o = 0; o < Format::kBytes / 16; o += 64)
                          fetch<kIntoL2>(next + l * (Format::kBytes / 16) + o);
                        asm volatile("" : : : "memory");
#pragma GCC unroll 12
                        for (int t = 0; t < T; ++t) {
                          const __m512i v = broadcast4(x + t * 64 + l * 4);
                          a[s][t][0] = dot(a[s][t][0], w0, v);
                          a[s][t][1] = dot(a[s][t][1], w1, v);
                        }
                      });
        if constexpr (Format::kGroupScale) {
          const __m512i m0 = Format::group_scale(block, q, 0),
                        m1 = Format::group_scale(block, q, 1);
#pragma GCC unroll 12
          for (int t = 0; t < T; ++t) {
            const __m512i s0 = _mm512_mullo_epi32(a[s][t][0], m0);
            const __m512i s1 = _mm512_mullo_epi32(a[s][t][1], m1);
            total[s][t][0] = i == 0 ? s0 : _mm512_add_epi32(total[s][t][0], s0);
            total[s][t][1] = i == 0 ? s1 : _mm512_add_epi32(total[s][t][1], s1);
          }
        }
      }
    }
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s)
#pragma GCC unroll 2
        for (int h = 0; h < 2; ++h) {
          float* out = c + t * 32 * S + 32 * s + 16 * h;
          const __m512i sum =
              Format::kGroupScale ? total[s][t % (Format::kGroupScale ? T : 1)][h] : a[s][t][h];
          _mm512_store_ps(out, add_block(sum, scales[b * ld + t], _mm512_load_ps(out), b == 0));
        }
  }
  for (int s = 0; s < S; ++s)
    for (int h = 0; h < 2; ++h) {
      const __m512 scale = _mm512_load_ps(panel + s * apart + 64 * h);
      for (int t = 0; t < T; ++t) {
        float* out = c + t * 32 * S + 32 * s + 16 * h;
        _mm512_store_ps(out, _mm512_mul_ps(_mm512_load_ps(out), scale));
      }
    }
}

/// One row of w4r: the products with raw codes first, then the multiplier of 16 k. Into L2 goes one
/// line in four: there the hardware brings the others, and a prefetch for each would slow it down.
template <bool kIntoL2, int S>
MOESAIC_AVX512 void gemv_w4r(const IntegerJob& job, const std::byte* panel, std::size_t apart,
                             std::size_t, std::size_t ahead, float* c) {
  const RowLayout& layout = *job.layout;
  const std::size_t steps = layout.block / 64;
  const float* scales = layout.scales(job.x);
  const std::int32_t* sums = layout.sums16(job.x);
  const __m512i nibble = _mm512_set1_epi8(15), mult_mask = _mm512_set1_epi32(15);
  const std::byte* x = job.x;
  const std::byte* block = panel + 128;
  for (std::size_t b = 0; b < layout.padded_cols / layout.block; ++b) {
    __m512i a[S][2];
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s) a[s][0] = a[s][1] = _mm512_setzero_si512();
    for (std::size_t i = 0; i < steps; ++i, x += 64, block += kBlockBytes, sums += 4) {
#pragma GCC unroll 4
      for (int s = 0; s < S; ++s) {
        const std::byte* v = block + s * apart;
        if constexpr (!kIntoL2) fetch(v + ahead);
        const auto* words = reinterpret_cast<const __m256i*>(v);
        const __m512i m0 = _mm512_cvtepu16_epi32(_mm256_load_si256(words));
        const __m512i m1 = _mm512_cvtepu16_epi32(_mm256_load_si256(words + 1));
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          __m512i a0 = _mm512_set1_epi32(-8 * sums[j]), a1 = a0;
#pragma GCC unroll 2
          for (int o = 0; o < 2; ++o) {
            const std::byte* line = v + 64 + (2 * j + o) * 128;
            if (!kIntoL2 || o == 0) fetch<kIntoL2>(line + ahead);
            if constexpr (!kIntoL2) fetch(line + ahead + 64);
            // Prefetches stay spread among the loads; in a burst they cost a tenth of the speed.
            asm volatile("" : : : "memory");
            const __m512i c0 = _mm512_load_si512(line), c1 = _mm512_load_si512(line + 64);
            const __m512i lo = broadcast4(x + j * 16 + o * 8);
            const __m512i hi = broadcast4(x + j * 16 + o * 8 + 4);
            a0 = dot(a0, _mm512_and_si512(c0, nibble), lo);
            a1 = dot(a1, _mm512_and_si512(c1, nibble), lo);
            a0 = dot(a0, _mm512_and_si512(_mm512_srli_epi16(c0, 4), nibble), hi);
            a1 = dot(a1, _mm512_and_si512(_mm512_srli_epi16(c1, 4), nibble), hi);
          }
          const __m512i k0 = _mm512_and_si512(_mm512_srli_epi32(m0, 4 * j), mult_mask);
          const __m512i k1 = _mm512_and_si512(_mm512_srli_epi32(m1, 4 * j), mult_mask);
          a[s][0] = _mm512_add_epi32(a[s][0], _mm512_mullo_epi32(a0, k0));
          a[s][1] = _mm512_add_epi32(a[s][1], _mm512_mullo_epi32(a1, k1));
        }
      }
    }
#pragma GCC unroll 4
    for (int s = 0; s < S; ++s)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        float* out = c + 32 * s + 16 * h;
        _mm512_store_ps(out, add_block(a[s][h], scales[b], _mm512_load_ps(out), b == 0));
      }
  }
#pragma GCC unroll 4
  for (int s = 0; s < S; ++s)
    for (int h = 0; h < 2; ++h) {
      float* out = c + 32 * s + 16 * h;
      const __m512 scale = _mm512_load_ps(panel + s * apart + 64 * h);
      _mm512_store_ps(out, _mm512_mul_ps(_mm512_load_ps(out), scale));
    }
}

using RegisterTile = void (*)(const IntegerJob&, const std::byte*, std::size_t, std::size_t,
                              std::size_t, float*);

/// Tiles of a format by rows and by panels side by side: of[log2 of panels][rows - 1]; null where
/// the sums would not fit in registers.
struct RegisterTiles {
  static constexpr std::size_t kMostRows = 8;
  std::array<std::array<RegisterTile, kMostRows>, 3> of{};
  std::size_t most_rows = kMostRows;

  /// Most panels side by side, up to `wanted`, for so many rows, as a power of two.
  std::size_t streams_for(std::size_t rows, std::size_t wanted) const {
    std::size_t kind = wanted >= 4 ? 2 : wanted / 2;
    while (kind > 0 && (rows > most_rows || of[kind][rows - 1] == nullptr)) --kind;
    return kind;
  }
};

template <class Format, bool kIntoL2, int S>
constexpr auto register_tiles_of_streams() {
  constexpr int kMostSums = 16;
  std::array<RegisterTile, RegisterTiles::kMostRows> tiles{};
  [&]<int... i>(std::integer_sequence<int, i...>) {
    ((tiles[i] = tile_registers<Format, kIntoL2, i + 1, S>), ...);
  }
  (std::make_integer_sequence<int, kMostSums / 2 / S>());
  return tiles;
}

template <class Format, bool kIntoL2>
constexpr RegisterTiles register_tiles() {
  return {.of = {register_tiles_of_streams<Format, kIntoL2, 1>(),
                 register_tiles_of_streams<Format, kIntoL2, 2>(),
                 register_tiles_of_streams<Format, kIntoL2, 4>()},
          .most_rows = Format::kGroupScale ? 4 : RegisterTiles::kMostRows};
}

template <bool kIntoL2>
constexpr RegisterTiles gemv_tiles() {
  return {.of = {{{gemv_w4r<kIntoL2, 1>}, {gemv_w4r<kIntoL2, 2>}, {gemv_w4r<kIntoL2, 4>}}}};
}

template <class Format>
const RegisterTiles& register_tiles_by_cache(bool into_l2) {
  static constexpr RegisterTiles l1 = register_tiles<Format, false>(),
                                 l2 = register_tiles<Format, true>();
  return into_l2 ? l2 : l1;
}

const RegisterTiles& register_tiles_for(const IntegerJob& job, bool into_l2) {
  // Sums of 16 values are there for a single row only.
  static constexpr RegisterTiles w4r_row = gemv_tiles<false>(), w4r_row_l2 = gemv_tiles<true>();
  switch (job.w->format) {
    case WeightFormat::kW8r:
      return register_tiles_by_cache<W8r>(into_l2);
    case WeightFormat::kW4r:
      if (job.layout->rows == 1) return into_l2 ? w4r_row_l2 : w4r_row;
      return register_tiles_by_cache<W4r>(into_l2);
    case WeightFormat::kCcq25:
      return register_tiles_by_cache<Ccq25>(into_l2);
    case WeightFormat::kCcq275:
      return register_tiles_by_cache<Ccq275>(into_l2);
    default:
      return register_tiles_by_cache<Ccq2>(into_l2);
  }
}

/// Panels from `first` on by 1 << `kind` streams, each a range of panels of its own: what a stream
/// fetches `ahead` bytes before it reads them is what it reads next.
/// @return the first panel that is left
std::size_t run_streams(const IntegerJob& job, const RegisterTiles& tiles, std::size_t kind,
                        std::size_t first, std::size_t ahead) {
  const std::size_t side = std::size_t{1} << kind, per = (job.last_panel - first) >> kind;
  const std::size_t panel_bytes = job.w->panel_bytes();
  const std::size_t rows = job.last_row - job.first_row;
  const std::size_t parts = (rows + tiles.most_rows - 1) / tiles.most_rows;
  alignas(64) float c[kRegisterRows * 32];
  for (std::size_t p = first; p < first + per; ++p) {
    for (std::size_t i = 0; i < parts; ++i) {
      const std::size_t begin = i * rows / parts, end = (i + 1) * rows / parts;
      // Later parts find in the cache what the first has fetched.
      tiles.of[kind][end - begin - 1](job, job.w->data + p * panel_bytes, per * panel_bytes,
                                      job.first_row + begin, i == 0 ? ahead : 0,
                                      c + begin * 32 * side);
    }
    for (std::size_t s = 0; s < side; ++s)
      job.sink->take(p + s * per, job.first_row, rows, c + 32 * s, 32 * side);
  }
  return first + (per << kind);
}

void run_few_rows(const IntegerJob& job) {
  const std::size_t rows = job.last_row - job.first_row;
  const Streams chosen = streams(rows == 1 ? StreamsOf::kRow : StreamsOf::kRows);
  const auto& tiles = register_tiles_for(job, chosen.into_l2);
  std::size_t kind = tiles.streams_for(rows, chosen.panels);
  for (std::size_t p = job.first_panel; p < job.last_panel; --kind)
    p = run_streams(job, tiles, kind, p, chosen.ahead);
}

// ---------------------------------------------------------------- many rows: by way of L1

/// What the tiles of one K block of one or two panels share.
struct BlockTile {
  const std::byte* weights = nullptr;  ///< unpacked: [panels][steps][2 halves][16 lines][64]
  std::size_t weights_stride = 0;      ///< bytes of a panel of them
  const std::int32_t* group_scales = nullptr;  ///< [steps][panels * 32], of formats that have them
  std::size_t steps = 0;
  std::size_t chunk = 0;
  const std::byte* const* x = nullptr;        ///< [T] values of the block
  const std::int32_t* const* sums = nullptr;  ///< [T] sums of it, or of its first 64 columns
  std::size_t ld = 0;
  const float* scales = nullptr;  ///< [T]
  float* c = nullptr;             ///< [T][panels * 32]
  bool first = false;
  const std::byte *prefetch = nullptr, *prefetch_end = nullptr;
};

template <int P, int V = 2 * P>
MOESAIC_AVX512_INLINE void load_lines(const BlockTile& tile, std::size_t offset, __m512i (&w)[V]) {
#pragma GCC unroll 4
  for (int v = 0; v < V; ++v)
    w[v] =
        _mm512_load_si512(tile.weights + (v / 2) * tile.weights_stride + (v % 2) * 1024 + offset);
}

template <bool kGroupScale, int P, int T>
MOESAIC_AVX512 [[gnu::noinline]] void tile_block(const BlockTile& tile, std::int32_t zero) {
  constexpr int V = 2 * P;
  __m512i a[T][V];
  alignas(64) std::int32_t total[kGroupScale ? T : 1][V * 16];
  const std::byte* ahead = tile.prefetch;
  const std::byte* x[T];
#pragma GCC unroll 12
  for (int t = 0; t < T; ++t) x[t] = tile.x[t];
  if constexpr (!kGroupScale) {
#pragma GCC unroll 12
    for (int t = 0; t < T; ++t) {
      const __m512i start = _mm512_set1_epi32(-zero * tile.sums[t][0]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) a[t][v] = start;
    }
  }
  std::size_t at = 0;
  for (std::size_t q = 0; q < tile.steps; ++q, at += tile.chunk) {
    if constexpr (kGroupScale) {
#pragma GCC unroll 12
      for (int t = 0; t < T; ++t) {
        const __m512i start = _mm512_set1_epi32(-zero * tile.sums[t][q * tile.ld]);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) a[t][v] = start;
      }
    }
#pragma GCC unroll 1
    for (std::size_t l = 0; l < 16; l += 2) {
      if (ahead < tile.prefetch_end) {
        _mm_prefetch(ahead, _MM_HINT_T1);
        _mm_prefetch(ahead + 64, _MM_HINT_T1);
        ahead += 128;
      }
#pragma GCC unroll 2
      for (std::size_t i = l; i < l + 2; ++i) {
        __m512i w[V];
        load_lines<P>(tile, q * kTile + i * 64, w);
#pragma GCC unroll 12
        for (int t = 0; t < T; ++t) {
          const __m512i v = broadcast4(x[t] + at + i * 4);
#pragma GCC unroll 4
          for (int n = 0; n < V; ++n) a[t][n] = dot(a[t][n], w[n], v);
        }
      }
    }
    if constexpr (kGroupScale) {
#pragma GCC unroll 12
      for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          const __m512i scaled = _mm512_mullo_epi32(
              a[t][v], _mm512_load_si512(tile.group_scales + q * V * 16 + v * 16));
          std::int32_t* sum = total[t] + v * 16;
          _mm512_store_si512(sum,
                             q == 0 ? scaled : _mm512_add_epi32(_mm512_load_si512(sum), scaled));
        }
    }
  }
#pragma GCC unroll 12
  for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      float* out = tile.c + t * V * 16 + v * 16;
      const __m512i sum =
          kGroupScale ? _mm512_load_si512(total[kGroupScale ? t : 0] + v * 16) : a[t][v];
      _mm512_store_ps(out, add_block(sum, tile.scales[t], _mm512_load_ps(out), tile.first));
    }
}

template <bool kGroupScale, int P, int kMost>
void run_tile(std::size_t rows, const BlockTile& tile, std::int32_t zero) {
  using Fn = void (*)(const BlockTile&, std::int32_t);
  static constexpr auto table = []<int... i>(std::integer_sequence<int, i...>) {
    return std::array<Fn, sizeof...(i)>{tile_block<kGroupScale, P, i + 1>...};
  }
  (std::make_integer_sequence<int, kMost>());
  table[rows - 1](tile, zero);
}

template <class Format>
MOESAIC_AVX512 void unpack(const std::byte* panel, std::size_t q, std::byte* out,
                           std::int32_t* group_scales) {
  const std::byte* block = Format::block(panel, q);
  Format::lines(block, panel, q, [&](std::size_t l, __m512i w0, __m512i w1) MOESAIC_AVX512_LAMBDA {
    _mm512_store_si512(out + l * 64, w0);
    _mm512_store_si512(out + 1024 + l * 64, w1);
  });
  if constexpr (Format::kGroupScale)
    for (int h = 0; h < 2; ++h)
      _mm512_store_si512(group_scales + 16 * h, Format::group_scale(block, q, h));
}

/// P panels from `panel` on for all rows of the job. c: [rows][P * 32].
template <class Format, int P>
void run_panels_through_l1(const IntegerJob& job, std::size_t panel, std::byte* scratch) {
  // 24 accumulators.
  constexpr int kMost = P == 2 ? 6 : 12;
  const RowLayout& layout = *job.layout;
  const std::size_t rows = job.last_row - job.first_row, ld = layout.padded_rows();
  const std::size_t steps = layout.block / 64, blocks = layout.padded_cols / layout.block;
  const std::size_t panel_bytes = job.w->panel_bytes();
  const std::byte* const first_panel = job.w->data + panel * panel_bytes;
  const std::size_t parts = (rows + kMost - 1) / kMost;

  BlockTile tile;
  tile.weights = scratch;
  tile.weights_stride = steps * kTile;
  auto* const group_scales = reinterpret_cast<std::int32_t*>(scratch + P * steps * kTile);
  auto* const c = reinterpret_cast<float*>(scratch + P * steps * (kTile + 128));
  tile.group_scales = group_scales;
  tile.steps = steps;
  tile.chunk = layout.chunk();
  tile.ld = ld;
  for (std::size_t b = 0; b < blocks; ++b) {
    for (int p = 0; p < P; ++p)
      for (std::size_t q = 0; q < steps; ++q)
        unpack<Format>(first_panel + p * panel_bytes, b * steps + q,
                       scratch + (p * steps + q) * kTile, group_scales + (q * P + p) * 32);
    // The next block of the panels (or the first of the next ones) into L2 meanwhile.
    const std::size_t bytes = steps * Format::kBytes;
    const bool more = b + 1 < blocks;
    const std::byte* next =
        more ? Format::block(first_panel, (b + 1) * steps) : first_panel + P * panel_bytes;
    const std::size_t share = (P * bytes / parts + 127) / 64 * 64;
    for (std::size_t i = 0; i < parts; ++i) {
      const std::size_t first = i * rows / parts, count = (i + 1) * rows / parts - first;
      const std::byte* x[kMost];
      const std::int32_t* sums[kMost];
      for (std::size_t t = 0; t < count; ++t) {
        const std::size_t row = job.first_row + first + t;
        x[t] = job.x + layout.value_offset(row, b * layout.block);
        sums[t] = Format::kGroupScale ? layout.sums64(job.x) + b * steps * ld + row
                                      : layout.sums(job.x) + b * ld + row;
      }
      tile.x = x;
      tile.sums = sums;
      tile.scales = layout.scales(job.x) + b * ld + job.first_row + first;
      tile.c = c + first * P * 32;
      tile.first = b == 0;
      const std::size_t at = i * share;
      tile.prefetch = at < bytes ? next + at : next + panel_bytes + (at - bytes);
      tile.prefetch_end = tile.prefetch + share;
      run_tile<Format::kGroupScale, P, kMost>(count, tile, Format::kZero);
    }
  }
  for (std::size_t p = 0; p < P; ++p)
    finish_panel(
        {epilogue_of(*job.w, *job.sink, panel + p), panel + p, job.first_row, rows,
         reinterpret_cast<const float*>(first_panel + p * panel_bytes), c + p * 32, P * 32},
        job);
}

template <class Format>
void run_many_rows(const IntegerJob& job) {
  const std::size_t rows = job.last_row - job.first_row;
  std::byte* scratch =
      integer_scratch(2 * (job.layout->block / 64) * (kTile + 128) + rows * 64 * sizeof(float));
  std::size_t p = job.first_panel;
  for (; p + 2 <= job.last_panel; p += 2) run_panels_through_l1<Format, 2>(job, p, scratch);
  if (p < job.last_panel) run_panels_through_l1<Format, 1>(job, p, scratch);
}

void run(const IntegerJob& job) {
  const std::size_t rows = job.last_row - job.first_row;
  if (rows == 0) return;
  if (rows <= kRegisterRows) return run_few_rows(job);
  switch (job.w->format) {
    case WeightFormat::kW8r:
      return run_many_rows<W8r>(job);
    case WeightFormat::kW4r:
      return run_many_rows<W4r>(job);
    case WeightFormat::kCcq25:
      return run_many_rows<Ccq25>(job);
    case WeightFormat::kCcq275:
      return run_many_rows<Ccq275>(job);
    default:
      return run_many_rows<Ccq2>(job);
  }
}

/// Bits of the largest magnitude of x[0, n).
MOESAIC_AVX512 std::uint32_t largest_bits(const float* x, std::size_t n) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  const auto bits = [magnitude](__m512 v) MOESAIC_AVX512_LAMBDA {
    return _mm512_and_si512(_mm512_castps_si512(v), magnitude);
  };
  __m512i most = _mm512_setzero_si512(), other = most;
  std::size_t k = 0;
  for (; k + 32 <= n; k += 32) {
    most = _mm512_max_epu32(most, bits(_mm512_loadu_ps(x + k)));
    other = _mm512_max_epu32(other, bits(_mm512_loadu_ps(x + k + 16)));
  }
  for (; k < n; k += 16)
    most = _mm512_max_epu32(most, bits(_mm512_maskz_loadu_ps(lanes16(k, n), x + k)));
  return _mm512_reduce_max_epu32(_mm512_max_epu32(most, other));
}

MOESAIC_AVX512 float quantize(const float* x, std::size_t cols, std::size_t block, std::int8_t* q,
                              std::size_t stride) {
  const BlockScale scale = block_scale(largest_bits(x, cols));
  const std::size_t some = scale.inverse > 0 ? cols : 0;
  const __m512 inverse = _mm512_set1_ps(scale.inverse);
  const auto rounded = [inverse](__m512 v) MOESAIC_AVX512_LAMBDA {
    return _mm512_cvtps_epi32(_mm512_mul_ps(v, inverse));
  };
  // Packing works within 128 bits: groups of four bytes come out as 0 4 8 12 | 1 5 9 13 | ...
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  std::size_t first = 0;
  for (; first + 64 <= some; first += 64, q += stride) {
    __m512i v[4];
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) v[j] = rounded(_mm512_loadu_ps(x + first + 16 * j));
    const __m512i bytes =
        _mm512_packs_epi16(_mm512_packs_epi32(v[0], v[1]), _mm512_packs_epi32(v[2], v[3]));
    _mm512_storeu_si512(q, _mm512_permutexvar_epi32(order, bytes));
  }
  for (; first < block; first += 64, q += stride)
    for (std::size_t k = 0; k < 64 && first + k < block; k += 16) {
      const __m512 v = _mm512_maskz_loadu_ps(lanes16(first + k, some), x + first + k);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q + k), _mm512_cvtepi32_epi8(rounded(v)));
    }
  return scale.scale;
}

}  // namespace

const IntegerLevel kIntegerAvx512 = {quantize, run};

}  // namespace moesaic::cpu
