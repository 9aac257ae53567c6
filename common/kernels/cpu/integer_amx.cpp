#include <immintrin.h>

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>

#include "common/kernels/cpu/amx.hpp"
#include "common/kernels/cpu/finished_panel.hpp"
#include "common/kernels/cpu/integer_formats.hpp"
#include "common/kernels/cpu/integer_formats_ccq.hpp"
#include "common/kernels/cpu/linear_level.hpp"
#include "common/kernels/cpu/targets.hpp"

// Integer products on tiles. Tiles 0-3 hold sums, 4 and 5 activations, 6 and 7 weights. A unit of
// work is 32 outputs (a panel) x up to 32 rows x one K block; all units of a block pass over the
// same unpacked weights in L1. What else there is to do is spread over the steps of a unit, where
// it runs beside the products: the sums of the unit before are stored between the first products
// (together at the end they cost a seventh of the speed), then scaled and added up, a share of the
// next block's weights is unpacked, and the block after that prefetched.

namespace moesaic::cpu {
namespace {

constexpr std::size_t kUnitRows = 32;
constexpr std::size_t kUnitValues = kUnitRows * 32;

// ---------------------------------------------------------------- unpacking

/// How tiles take a format: kPlanes B tiles a half, whose products are added in the proportion
/// 1 : 4; unpack() writes lines 4 j .. 4 j + 3 of 64 k to out [plane][half][16 lines][64].
template <class Format>
struct Unpacked {
  static constexpr std::size_t kPlanes = 1;
  MOESAIC_AVX512 [[gnu::noinline]] static void quarter(const std::byte* panel, std::size_t q, int j,
                                                       std::byte* out) {
    Format::quarter(Format::block(panel, q), panel, q, j, 0,
                    [&](std::size_t l, __m512i w0, __m512i w1) MOESAIC_AVX512_LAMBDA {
                      _mm512_store_si512(out + l * 64, w0);
                      _mm512_store_si512(out + 1024 + l * 64, w1);
                    });
  }
};

/// (level - 32) * multiplier needs ten bits: a plane for the two low bits of the multiplier and one
/// for the others.
template <>
struct Unpacked<Ccq2> {
  static constexpr std::size_t kPlanes = 2;

  struct Plane {
    __m512i mult, base;
  };
  MOESAIC_INLINE static Plane plane(__m512i part) {
    const __m512i m = _mm512_or_si512(part, _mm512_slli_epi32(part, 16));
    // 32 * m in both bytes of 16 bits, from zero.
    const __m512i raised = _mm512_mullo_epi16(m, _mm512_set1_epi16(32 * 257));
    return {m, _mm512_sub_epi8(_mm512_setzero_si512(), raised)};
  }
  /// level * mult <= 189: one 16-bit multiplication scales two levels.
  MOESAIC_INLINE static __m512i scale(__m512i levels, Plane p) {
    return _mm512_add_epi8(_mm512_mullo_epi16(levels, p.mult), p.base);
  }
  MOESAIC_AVX512 [[gnu::noinline]] static void quarter(const std::byte* panel, std::size_t q, int j,
                                                       std::byte* out) {
    const std::byte* block = Ccq2::block(panel, q);
    const __m512i m0 = Ccq2::group_scale(block, q, 0), m1 = Ccq2::group_scale(block, q, 1);
    const __m512i three = _mm512_set1_epi32(3);
    const Plane low0 = plane(_mm512_and_si512(m0, three)), high0 = plane(_mm512_srli_epi32(m0, 2));
    const Plane low1 = plane(_mm512_and_si512(m1, three)), high1 = plane(_mm512_srli_epi32(m1, 2));
    Ccq2::quarter(block, panel, q, j,
                  [&](std::size_t l, __m512i w0, __m512i w1) MOESAIC_AVX512_LAMBDA {
                    std::byte* to = out + l * 64;
                    _mm512_store_si512(to, scale(w0, low0));
                    _mm512_store_si512(to + 1024, scale(w1, low1));
                    _mm512_store_si512(to + 2048, scale(w0, high0));
                    _mm512_store_si512(to + 3072, scale(w1, high1));
                  });
  }
};

// ---------------------------------------------------------------- finished sums

/// Sums of a unit and K block, on their way from tiles to the unit's f32 sums: out = sum * scale +
/// in. Whole tiles; what stands in rows that are not real does not matter.
struct Drain {
  std::size_t rows = 0;               ///< 0, 16 or 32
  const std::int32_t* sum = nullptr;  ///< [tiles of rows][halves][16][16], or planes for tiles
  const float* scales = nullptr;      ///< of the rows in this block
  const float* in = nullptr;          ///< [rows][32]; of the first block -0, which adds nothing
  float* out = nullptr;
};

template <std::size_t kPlanes>
MOESAIC_INLINE __m512i sum_of_planes(const std::int32_t* sum) {
  const __m512i low = _mm512_load_si512(sum);
  if constexpr (kPlanes == 1) return low;
  return _mm512_add_epi32(low, _mm512_slli_epi32(_mm512_load_si512(sum + 512), 2));
}

/// Rows [first, first + kRows).
template <std::size_t kPlanes, std::size_t kRows>
MOESAIC_INLINE void drain_rows(const Drain& d, std::size_t first) {
  // A row's halves lie a tile apart.
  const std::int32_t* sum = d.sum + first / 16 * 512 + first % 16 * 16;
  const float *scales = d.scales + first, *in = d.in + first * 32;
  float* out = d.out + first * 32;
#pragma GCC unroll 16
  for (std::size_t i = 0; i < kRows; ++i) {
    const __m512 scale = _mm512_set1_ps(scales[i]);
#pragma GCC unroll 2
    for (std::size_t h = 0; h < 2; ++h) {
      const __m512 v = _mm512_cvtepi32_ps(sum_of_planes<kPlanes>(sum + i * 16 + h * 256));
      _mm512_store_ps(out + i * 32 + h * 16,
                      _mm512_fmadd_ps(v, scale, _mm512_load_ps(in + i * 32 + h * 16)));
    }
  }
}

// ---------------------------------------------------------------- a unit

/// Things to do one after the other, spread over the steps of a unit: `count` of them from `next`
/// on, every step `each`, or, where that is 0, one in some of the steps. The same pattern unit
/// after unit, so that branches are foreseen.
struct Share {
  std::size_t next = 0, count = 0, each = 0;

  Share() = default;
  /// Part `index` of `parts` of `total`.
  Share(std::size_t total, std::size_t index, std::size_t parts, std::size_t steps) {
    const std::size_t size = (total + parts - 1) / parts;
    next = std::min(total, size * index);
    count = std::min(total - next, size);
    each = size < steps ? 0 : (size + steps - 1) / steps;
  }
  /// How many in step q.
  std::size_t at(std::size_t q, std::size_t steps) const {
    if (each == 0) return q * count % steps < count ? 1 : 0;
    return std::min(each, count - std::min(count, q * each));
  }
};

struct Unit {
  const std::byte* weights = nullptr;  ///< unpacked, [steps][planes][halves][1024], or in place
  const std::byte* x = nullptr;        ///< first tile of activations
  std::size_t next_rows = 0;           ///< bytes to the next 16 rows
  std::size_t chunk = 0;               ///< bytes to the next 64 k
  std::int32_t* sum = nullptr;         ///< takes the sums that are in the tiles
  Drain drain;                         ///< what to do with them
  // Of the next block, in quarters of 64 k.
  Share unpack;
  const std::byte* panel = nullptr;
  std::size_t first_q = 0;
  std::byte* to = nullptr;
  // Lines of the block after it to fetch in every step.
  const std::byte* fetch = nullptr;
  std::size_t fetch_lines = 0;
  // In rows.
  Share finish;
  FinishedPanel ready;
};

/// kDirect: weights are lines of both halves in turn, as they are stored.
/// @post sums are in the tiles: [rows of tiles][halves], or [planes][halves]
template <class Format, std::size_t kTiles, bool kDirect, std::size_t kSteps>
MOESAIC_AVX512 [[gnu::noinline]] void run_unit(const Unit& u) {
  constexpr std::size_t kPlanes = kDirect ? 1 : Unpacked<Format>::kPlanes;
  static_assert(kPlanes == 1 || kTiles == 1);
  constexpr std::size_t kSecond = kDirect ? 64 : 1024, kStride = kDirect ? 128 : 64;
  const std::byte *x = u.x, *w = u.weights, *fetch = u.fetch;
  const std::size_t fetch_lines = u.fetch_lines;
  const Drain drain = u.drain;
  std::size_t quarter = u.unpack.next, row = u.finish.next;
  // A front end that has to do more than this between tile instructions becomes the limit.
#pragma GCC unroll 8
  for (std::size_t q = 0; q < kSteps; ++q, x += u.chunk, w += kPlanes * kTile) {
    MOESAIC_TILE_LOAD(6, w, kStride);
    MOESAIC_TILE_STREAM(4, x, 64);
    MOESAIC_TILE_LOAD(7, w + kSecond, kStride);
    if (q == 0) {
      MOESAIC_TILE_STORE(0, u.sum, 64);
      MOESAIC_TILE_ZERO(0);
    }
    MOESAIC_TILE_DOT(tdpbssd, 0, 4, 6);
    if (q == 0) {
      MOESAIC_TILE_STORE(1, u.sum + 256, 64);
      MOESAIC_TILE_ZERO(1);
    }
    MOESAIC_TILE_DOT(tdpbssd, 1, 4, 7);
    for (std::size_t i = 0; i < fetch_lines; ++i, fetch += 64) _mm_prefetch(fetch, _MM_HINT_T1);
    if constexpr (kTiles == 2) {
      MOESAIC_TILE_STREAM(5, x + u.next_rows, 64);
    } else if constexpr (kPlanes == 2) {
      MOESAIC_TILE_LOAD(6, w + kTile, 64);
      MOESAIC_TILE_LOAD(7, w + kTile + kSecond, 64);
    }
    if (q == 0) {
      if (drain.rows > 16 || kPlanes == 2) {
        MOESAIC_TILE_STORE(2, u.sum + 512, 64);
        MOESAIC_TILE_STORE(3, u.sum + 768, 64);
      }
      if constexpr (kTiles == 2 || kPlanes == 2) {
        MOESAIC_TILE_ZERO(2);
        MOESAIC_TILE_ZERO(3);
      }
    }
    if constexpr (kTiles == 2) {
      MOESAIC_TILE_DOT(tdpbssd, 2, 5, 6);
      MOESAIC_TILE_DOT(tdpbssd, 3, 5, 7);
    } else if constexpr (kPlanes == 2) {
      MOESAIC_TILE_DOT(tdpbssd, 2, 4, 6);
      MOESAIC_TILE_DOT(tdpbssd, 3, 4, 7);
    }
    if constexpr (!kDirect)
      for (std::size_t i = u.unpack.at(q, kSteps); i > 0; --i, ++quarter)
        Unpacked<Format>::quarter(u.panel, u.first_q + quarter / 4, static_cast<int>(quarter % 4),
                                  u.to + quarter / 4 * kPlanes * kTile);
    // The second 16 rows, if there are any, in the second half of the steps.
    if constexpr (kSteps == 1) {
      if (drain.rows > 0) drain_rows<kPlanes, 16>(drain, 0);
      if (drain.rows > 16) drain_rows<kPlanes, 16>(drain, 16);
    } else {
      constexpr std::size_t kRows = 32 / kSteps;
      if (drain.rows > q * kRows) drain_rows<kPlanes, kRows>(drain, q * kRows);
    }
    if (const std::size_t n = u.finish.at(q, kSteps); n > 0) {
      finish_rows(u.ready, row, row + n);
      row += n;
    }
  }
}

/// Tiles of 16 rows of weights, and of so many rows of sums and activations, while this lives.
class Tiles {
 public:
  explicit Tiles(std::size_t rows) {
    TileConfig config;
    for (std::size_t i = 0; i < 8; ++i) {
      config.row_bytes[i] = 64;
      config.rows[i] = static_cast<std::uint8_t>(i < 6 ? rows : 16);
    }
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  ~Tiles() { asm volatile("tilerelease" ::); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

/// The sums in the tiles, when no unit follows.
template <std::size_t kPlanes>
MOESAIC_AVX512 void store_and_drain(const Unit& u) {
  MOESAIC_TILE_STORE(0, u.sum, 64);
  MOESAIC_TILE_STORE(1, u.sum + 256, 64);
  MOESAIC_TILE_STORE(2, u.sum + 512, 64);
  MOESAIC_TILE_STORE(3, u.sum + 768, 64);
  for (std::size_t row = 0; row < u.drain.rows; row += 16) drain_rows<kPlanes, 16>(u.drain, row);
}

/// Finishes at once what is not to be spread over the visits of the next panel.
void finish_early(FinishedPanel& panel, const IntegerJob& job, std::size_t visits) {
  if (panel.epilogue.kind != Epilogue::Kind::kTake && visits > 1) return;
  finish_panel(panel, job);
  panel.rows = 0;
}

struct alignas(64) MinusZeros {
  float values[kUnitValues];
  constexpr MinusZeros() : values() {
    for (float& v : values) v = -0.0F;
  }
};
constexpr MinusZeros kMinusZeros;

template <class Format, bool kDirect, std::size_t kSteps>
void run_tiles(const IntegerJob& job) {
  constexpr std::size_t kPlanes = kDirect ? 1 : Unpacked<Format>::kPlanes;
  constexpr std::size_t kStepBytes = kPlanes * kTile;
  constexpr std::size_t kTiles = kPlanes == 1 ? 2 : 1;
  constexpr std::size_t kUnitSums = kTiles * 16 * 32;
  const RowLayout& layout = *job.layout;
  const std::size_t blocks = layout.padded_cols / layout.block;
  const std::size_t rows = job.last_row - job.first_row;
  const std::size_t tiles = (rows + 15) / 16, units = (tiles + kTiles - 1) / kTiles;
  const std::size_t visits = units * blocks;
  const std::size_t panel_bytes = job.w->panel_bytes(), bytes = kSteps * Format::kBytes;

  const std::size_t unpacked_bytes = kDirect ? 0 : kSteps * kStepBytes;
  std::byte* const unpacked =
      integer_scratch(2 * unpacked_bytes + kUnitValues * 4 + 2 * units * kUnitSums * sizeof(float));
  auto* const sums = reinterpret_cast<std::int32_t*>(unpacked + 2 * unpacked_bytes);
  auto* const acc = reinterpret_cast<float*>(sums + kUnitValues);

  const std::byte* panel = job.w->data + job.first_panel * panel_bytes;
  if constexpr (!kDirect)
    for (std::size_t i = 0; i < 4 * kSteps; ++i)
      Unpacked<Format>::quarter(panel, i / 4, static_cast<int>(i % 4),
                                unpacked + i / 4 * kStepBytes);
  const Tiles configured(layout.tile_rows());
  Unit unit;
  unit.chunk = layout.chunk();
  unit.next_rows = layout.padded_cols / 64 * layout.chunk();
  unit.sum = sums;
  unit.drain.sum = sums;
  unit.fetch_lines = (bytes / 64 + units * kSteps - 1) / (units * kSteps);
  std::size_t turn = 0;
  for (std::size_t p = job.first_panel; p < job.last_panel; ++p, panel += panel_bytes) {
    float* const panel_acc = acc + (p - job.first_panel) % 2 * units * kUnitSums;
    std::size_t visit = 0;
    for (std::size_t b = 0; b < blocks; ++b, ++turn) {
      const bool last_block = b + 1 == blocks, more = !last_block || p + 1 < job.last_panel;
      unit.panel = last_block ? panel + panel_bytes : panel;
      unit.first_q = last_block ? 0 : (b + 1) * kSteps;
      unit.to = unpacked + (turn + 1) % 2 * unpacked_bytes;
      unit.weights =
          kDirect ? Format::block(panel, b * kSteps) : unpacked + turn % 2 * unpacked_bytes;
      unit.fetch = Format::block(unit.panel, unit.first_q) + bytes;
      for (std::size_t i = 0; i < units; ++i, ++visit) {
        const std::size_t row = job.first_row + i * kTiles * 16;
        unit.x = job.x + layout.value_offset(row, b * layout.block);
        unit.unpack = Share(more ? 4 * kSteps : 0, i, units, kSteps);
        // The panel before has its last sums after the first visit.
        unit.finish = visit == 0 ? Share() : Share(unit.ready.rows, visit - 1, visits - 1, kSteps);
        const bool two = kTiles == 2 && 2 * i + 1 < tiles;
        if (two)
          run_unit<Format, kTiles, kDirect, kSteps>(unit);
        else
          run_unit<Format, 1, kDirect, kSteps>(unit);
        unit.fetch += unit.fetch_lines * kSteps * 64;
        float* const sums_so_far = panel_acc + i * kUnitSums;
        unit.drain.rows = two ? 32 : 16;
        unit.drain.scales = layout.scales(job.x) + b * layout.padded_rows() + row;
        unit.drain.in = b == 0 ? kMinusZeros.values : sums_so_far;
        unit.drain.out = sums_so_far;
        if (visit == 0 && unit.ready.rows > 0) finish_early(unit.ready, job, visits);
      }
    }
    unit.ready = {
        epilogue_of(job, p), p, job.first_row, rows, reinterpret_cast<const float*>(panel),
        panel_acc,           32};
  }
  store_and_drain<kPlanes>(unit);
  finish_early(unit.ready, job, 1);
}

template <class Format, bool kDirect = false>
void run_format(const IntegerJob& job) {
  switch (job.layout->block) {
    case 64:
      return run_tiles<Format, kDirect, 1>(job);
    case 128:
      return run_tiles<Format, kDirect, 2>(job);
    case 256:
      return run_tiles<Format, kDirect, 4>(job);
    default:
      assert(job.layout->block == 512);
      return run_tiles<Format, kDirect, 8>(job);
  }
}

void quantize(const float* x, std::size_t cols, std::size_t padded, std::size_t block,
              std::int8_t* q, float* scales) {
  kIntegerAvx512.quantize(x, cols, padded, block, q, scales);
}

/// Few rows, and multipliers of 13 bits, which take no tile: the kernels of vectors.
bool without_tiles(WeightFormat format, std::size_t rows) {
  return rows <= kRowsWithoutTiles || format == WeightFormat::kCcq25;
}

void run(const IntegerJob& job) {
  if (job.last_row == job.first_row || job.first_panel == job.last_panel) return;
  if (without_tiles(job.w->format, job.layout->rows)) return kIntegerAvx512.run(job);
  switch (job.w->format) {
    case WeightFormat::kW8r:
      return run_format<W8r, true>(job);
    case WeightFormat::kW4r:
      return run_format<W4r>(job);
    case WeightFormat::kCcq275:
      return run_format<Ccq275>(job);
    default:
      return run_format<Ccq2>(job);
  }
}

}  // namespace

const IntegerLevel kIntegerAmx = {quantize, run, without_tiles};

}  // namespace moesaic::cpu
