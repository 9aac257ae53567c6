#include <immintrin.h>

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "common/kernels/cpu/amx.hpp"
#include "common/kernels/cpu/finished_panel.hpp"
#include "common/kernels/cpu/integer_formats.hpp"
#include "common/kernels/cpu/integer_formats_ccq.hpp"
#include "common/kernels/cpu/linear_level.hpp"
#include "common/kernels/cpu/targets.hpp"

// Integer products on tiles. Tiles 0-3 hold sums, 4 and 5 activations, 6 and 7 weights. A unit of
// work is 32 outputs (a panel) x up to 32 rows x one K block; all units of a block pass over the
// same unpacked weights in L1, of which there is just enough: what lies there beside them is paid
// for. What else there is to do stands between the tile instructions of a unit, a piece in each gap
// (a core that is shared with another user of tiles wants gaps, see MOESAIC_TILE_GAP): the sums of
// the unit before are scaled and added up, or finished after the last block, the weights of the
// next block are prefetched and, in the last unit of a block, unpacked in the place of its own.

namespace moesaic::cpu {
namespace {

constexpr std::size_t kUnitValues = 32 * 32;

// ---------------------------------------------------------------- unpacking

/// How tiles take a format: kPlanes B tiles a half, whose products are added in the proportion
/// 1 : 4; quarter() writes lines 4 j .. 4 j + 3 of 64 k to out [plane][half][16 lines][64].
template <class Format>
struct Unpacked {
  static constexpr std::size_t kPlanes = 1;
  template <int j>
  MOESAIC_AVX512_INLINE static void quarter(const std::byte* panel, std::size_t q, std::byte* out) {
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
  MOESAIC_AVX512_INLINE static Plane plane(__m512i part) {
    const __m512i m = _mm512_or_si512(part, _mm512_slli_epi32(part, 16));
    // 32 * m in both bytes of 16 bits, from zero.
    const __m512i raised = _mm512_mullo_epi16(m, _mm512_set1_epi16(32 * 257));
    return {m, _mm512_sub_epi8(_mm512_setzero_si512(), raised)};
  }
  /// level * mult <= 189: one 16-bit multiplication scales two levels.
  MOESAIC_AVX512_INLINE static __m512i scale(__m512i levels, Plane p) {
    return _mm512_add_epi8(_mm512_mullo_epi16(levels, p.mult), p.base);
  }
  template <int j>
  MOESAIC_AVX512_INLINE static void quarter(const std::byte* panel, std::size_t q, std::byte* out) {
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

/// 64 k of a panel.
template <class Format>
MOESAIC_AVX512 void unpack(const std::byte* panel, std::size_t q, std::byte* out) {
  Unpacked<Format>::template quarter<0>(panel, q, out);
  Unpacked<Format>::template quarter<1>(panel, q, out);
  Unpacked<Format>::template quarter<2>(panel, q, out);
  Unpacked<Format>::template quarter<3>(panel, q, out);
}

// ---------------------------------------------------------------- sums

/// Sums of a unit and K block, on their way from tiles to the unit's f32 sums, out = sum * scale +
/// in, or, after the last block, to what becomes of them.
struct Drain {
  enum class To : std::uint8_t {
    kSums,
    kSiluMul,
    kLeaves,  ///< Epilogue::kLeaves with weights
    kOther,   ///< by the epilogue's kind
  };
  To to = To::kSums;
  std::size_t rows = 0;               ///< real ones, at most 32
  const std::int32_t* sum = nullptr;  ///< [rows][32], or [planes][16][32]
  const float* scales = nullptr;      ///< of the rows in this block
  const float* in = nullptr;          ///< [rows][32], or [32] for all rows
  std::size_t in_bytes = 0;           ///< to the next row of these, 128 or 0
  float* out = nullptr;               ///< [rows][32]
  // Of finished sums.
  Epilogue epilogue;
  const float* panel_scales = nullptr;  ///< [32]
  std::size_t panel = 0;
  std::size_t first_row = 0;  ///< of the layout
};

template <std::size_t kPlanes>
MOESAIC_AVX512_INLINE __m512i sum_of_planes(const std::int32_t* sum) {
  const __m512i low = _mm512_load_si512(sum);
  if constexpr (kPlanes == 1) return low;
  return _mm512_add_epi32(low, _mm512_slli_epi32(_mm512_load_si512(sum + 512), 2));
}

/// The row of a drain that is next, and what is needed for every row. The compiler keeps this in
/// registers; what a pointer leads to it would read again behind every tile instruction.
struct DrainCursor {
  const std::byte *sum, *in;
  std::byte* out;
  const float* scale;
  std::size_t in_bytes, first_row, panel;
  Epilogue epilogue;
  __m512 scale0, scale1;  ///< of the panel
  std::size_t row = 0;

  template <Drain::To kTo>
  MOESAIC_AVX512_INLINE static DrainCursor start(const Drain& d) {
    DrainCursor at;
    at.sum = reinterpret_cast<const std::byte*>(d.sum);
    at.in = reinterpret_cast<const std::byte*>(d.in);
    at.in_bytes = d.in_bytes;
    at.out = reinterpret_cast<std::byte*>(d.out);
    at.scale = d.scales;
    if constexpr (kTo != Drain::To::kSums) {
      at.first_row = d.first_row;
      at.panel = d.panel;
      at.epilogue = d.epilogue;
      at.scale0 = _mm512_load_ps(d.panel_scales);
      at.scale1 = _mm512_load_ps(d.panel_scales + 16);
    }
    return at;
  }
};

/// to_bf16x32 by the CPU's instruction, unless that would lose a denormal.
MOESAIC_AVX512_INLINE __m512i bf16_line(__m512 v0, __m512 v1) {
  constexpr int kDenormal = 0x20;
  const __mmask16 lost =
      _mm512_fpclass_ps_mask(v0, kDenormal) | _mm512_fpclass_ps_mask(v1, kDenormal);
  if (lost != 0) [[unlikely]]
    return to_bf16x32(v0, v1);
  __m512i line;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(line) : "v"(v0), "v"(v1));
  return line;
}

template <std::size_t kPlanes, Drain::To kTo>
MOESAIC_AVX512_INLINE void drain_row(DrainCursor& at) {
  const std::size_t offset = at.row * 128;
  const auto* sum = reinterpret_cast<const std::int32_t*>(at.sum + offset);
  const auto* in = reinterpret_cast<const float*>(at.in);
  auto* out = reinterpret_cast<float*>(at.out + offset);
  const __m512 scale = _mm512_set1_ps(at.scale[at.row]);
  const __m512 v0 =
      _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum_of_planes<kPlanes>(sum)), scale, _mm512_load_ps(in));
  const __m512 v1 = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum_of_planes<kPlanes>(sum + 16)), scale,
                                    _mm512_load_ps(in + 16));
  if constexpr (kTo == Drain::To::kSums) {
    _mm512_store_ps(out, v0);
    _mm512_store_ps(out + 16, v1);
  } else {
    const std::size_t row = at.first_row + at.row;
    const __m512 y0 = _mm512_mul_ps(v0, at.scale0), y1 = _mm512_mul_ps(v1, at.scale1);
    if constexpr (kTo == Drain::To::kLeaves) {
      const __m512 w = _mm512_set1_ps(at.epilogue.weights[row]);
      Bf16* y = static_cast<Bf16*>(at.epilogue.rows[row]) + at.panel * 32;
      store_line(false, y, 64, bf16_line(_mm512_mul_ps(y0, w), _mm512_mul_ps(y1, w)));
    } else {
      finish_row<kTo == Drain::To::kSiluMul>(at.epilogue, at.panel, row, y0, y1, out);
    }
  }
  at.in += at.in_bytes;
  ++at.row;
}

template <std::size_t kPlanes, Drain::To kTo>
MOESAIC_AVX512 void drain_rows(const Drain& d) {
  for (auto at = DrainCursor::start<kTo>(d); at.row < d.rows;) drain_row<kPlanes, kTo>(at);
}

// ---------------------------------------------------------------- a unit

struct Unit {
  const std::byte* weights = nullptr;  ///< [steps][planes][halves][1024], or as they are stored
  std::byte* unpacked = nullptr;       ///< the same place, unless they are as stored
  const std::byte* x = nullptr;        ///< first tile of activations
  std::size_t next_rows = 0;           ///< bytes to the next 16 rows
  std::size_t chunk = 0;               ///< bytes to the next 64 k
  std::int32_t* sum = nullptr;         ///< takes the sums that are in the tiles
  Drain drain;                         ///< what to do with them
  // The next block, if this is the last unit of its own.
  const std::byte* next_panel = nullptr;
  std::size_t next_q = 0;
  // Lines of the next block to fetch in every step.
  const std::byte* fetch = nullptr;
  std::size_t fetch_lines = 0;
};

/// kDirect: weights are lines of both halves in turn, as they are stored. kUnpack: a step's
/// weights, once they are in tiles, give way to those of the next block.
/// @post sums are in the tiles: [rows of tiles][halves], or [planes][halves]
template <class Format, std::size_t kTiles, bool kDirect, std::size_t kSteps, Drain::To kTo,
          bool kUnpack>
MOESAIC_AVX512 [[gnu::noinline]] void run_steps(const Unit& u) {
  constexpr std::size_t kPlanes = kDirect ? 1 : Unpacked<Format>::kPlanes;
  static_assert(kPlanes == 1 || kTiles == 1);
  constexpr std::size_t kSecond = kDirect ? 64 : 1024, kStride = kDirect ? 128 : 64;
  constexpr std::size_t kRowsAtOnce = 8 / kSteps;
  const std::byte *x = u.x, *w = u.weights, *fetch = u.fetch;
  const std::size_t fetch_lines = u.fetch_lines, next_rows = u.next_rows;
  std::byte* unpacked = u.unpacked;
  const std::size_t drain_rows = u.drain.rows;
  auto at = DrainCursor::start<kTo>(u.drain);

  const auto store_others = [&]() MOESAIC_AVX512_LAMBDA {
    MOESAIC_TILE_STORE(2, u.sum + 512, 128);
    MOESAIC_TILE_GAP();
    MOESAIC_TILE_STORE(3, u.sum + 528, 128);
  };
  MOESAIC_TILE_STORE(0, u.sum, 128);
  MOESAIC_TILE_GAP();
  MOESAIC_TILE_STORE(1, u.sum + 16, 128);
  if constexpr (kPlanes == 2) store_others();  // the other plane of the first rows
  for (std::size_t q = 0; q < kSteps;
       ++q, x += u.chunk, w += kPlanes * kTile, unpacked += kPlanes * kTile) {
    const auto rows = [&]() MOESAIC_AVX512_LAMBDA {
      if (at.row >= drain_rows) {
        MOESAIC_TILE_GAP();
        return;
      }
      for (std::size_t i = 0; i < kRowsAtOnce; ++i)
        if (kRowsAtOnce == 1 || at.row < drain_rows) drain_row<kPlanes, kTo>(at);
    };
    const auto unpack = [&]<int j>(std::integral_constant<int, j>) MOESAIC_AVX512_LAMBDA {
      if constexpr (kUnpack)
        Unpacked<Format>::template quarter<j>(u.next_panel, u.next_q + q, unpacked);
      else
        MOESAIC_TILE_GAP();
    };
    using std::integral_constant;

    MOESAIC_TILE_GAP();
    MOESAIC_TILE_LOAD(6, w, kStride);
    rows();
    MOESAIC_TILE_STREAM(4, x, 64);
    MOESAIC_TILE_GAP();
    MOESAIC_TILE_LOAD(7, w + kSecond, kStride);
    rows();
    if (q == 0) MOESAIC_TILE_ZERO(0);
    MOESAIC_TILE_DOT(tdpbssd, 0, 4, 6);
    if constexpr (kPlanes == 1) unpack(integral_constant<int, 0>());
    if (q == 0) MOESAIC_TILE_ZERO(1);
    MOESAIC_TILE_DOT(tdpbssd, 1, 4, 7);
    if (kPlanes == 1 && q == 0 && drain_rows > 16) store_others();
    for (std::size_t i = 0; i < fetch_lines; ++i, fetch += 64) _mm_prefetch(fetch, _MM_HINT_T1);
    rows();
    if constexpr (kTiles == 2) {
      MOESAIC_TILE_STREAM(5, x + next_rows, 64);
    } else if constexpr (kPlanes == 2) {
      MOESAIC_TILE_LOAD(6, w + kTile, 64);
      MOESAIC_TILE_GAP();
      MOESAIC_TILE_LOAD(7, w + kTile + kSecond, 64);
      unpack(integral_constant<int, 0>());
    }
    unpack(integral_constant<int, 1>());
    if constexpr (kTiles == 2 || kPlanes == 2) {
      constexpr bool kRows = kTiles == 2;
      if (q == 0) MOESAIC_TILE_ZERO(2);
      if constexpr (kRows)
        MOESAIC_TILE_DOT(tdpbssd, 2, 5, 6);
      else
        MOESAIC_TILE_DOT(tdpbssd, 2, 4, 6);
      unpack(integral_constant<int, 2>());
      rows();
      if (q == 0) MOESAIC_TILE_ZERO(3);
      if constexpr (kRows)
        MOESAIC_TILE_DOT(tdpbssd, 3, 5, 7);
      else
        MOESAIC_TILE_DOT(tdpbssd, 3, 4, 7);
    } else {
      unpack(integral_constant<int, 2>());
      rows();
    }
    unpack(integral_constant<int, 3>());
  }
}

template <class Format, std::size_t kTiles, bool kDirect, std::size_t kSteps, bool kUnpack>
void run_unit_to(const Unit& u) {
  switch (u.drain.to) {
    case Drain::To::kSums:
      return run_steps<Format, kTiles, kDirect, kSteps, Drain::To::kSums, kUnpack>(u);
    case Drain::To::kSiluMul:
      return run_steps<Format, kTiles, kDirect, kSteps, Drain::To::kSiluMul, kUnpack>(u);
    case Drain::To::kLeaves:
      return run_steps<Format, kTiles, kDirect, kSteps, Drain::To::kLeaves, kUnpack>(u);
    case Drain::To::kOther:
      return run_steps<Format, kTiles, kDirect, kSteps, Drain::To::kOther, kUnpack>(u);
  }
}

template <class Format, std::size_t kTiles, bool kDirect, std::size_t kSteps>
void run_unit(const Unit& u, bool two) {
  if (kTiles == 2 && !two) return run_unit<Format, 1, kDirect, kSteps>(u, false);
  if constexpr (!kDirect)
    if (u.next_panel != nullptr) return run_unit_to<Format, kTiles, kDirect, kSteps, true>(u);
  run_unit_to<Format, kTiles, kDirect, kSteps, false>(u);
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

/// The sums in the tiles, when no unit follows: those of the last block.
template <std::size_t kPlanes>
MOESAIC_AVX512 void store_and_drain(const Unit& u) {
  MOESAIC_TILE_STORE(0, u.sum, 128);
  MOESAIC_TILE_STORE(1, u.sum + 16, 128);
  MOESAIC_TILE_STORE(2, u.sum + 512, 128);
  MOESAIC_TILE_STORE(3, u.sum + 528, 128);
  switch (u.drain.to) {
    case Drain::To::kSums:  // never of a last block
      break;
    case Drain::To::kSiluMul:
      return drain_rows<kPlanes, Drain::To::kSiluMul>(u.drain);
    case Drain::To::kLeaves:
      return drain_rows<kPlanes, Drain::To::kLeaves>(u.drain);
    case Drain::To::kOther:
      return drain_rows<kPlanes, Drain::To::kOther>(u.drain);
  }
}

/// What is added to the sums of the first block: nothing, not even to the sign of a zero.
struct alignas(64) MinusZeros {
  float values[32];
  constexpr MinusZeros() : values() {
    for (float& v : values) v = -0.0F;
  }
};
constexpr MinusZeros kMinusZeros;

/// What becomes of finished sums.
Drain::To target_of(const Epilogue& e) {
  if (e.kind == Epilogue::Kind::kSiluMul) return Drain::To::kSiluMul;
  const bool leaves = e.kind == Epilogue::Kind::kLeaves && !e.stream;
  return leaves && e.weights != nullptr && e.bias == nullptr ? Drain::To::kLeaves
                                                             : Drain::To::kOther;
}

template <class Format, bool kDirect, std::size_t kSteps>
void run_tiles(const IntegerJob& job) {
  constexpr std::size_t kPlanes = kDirect ? 1 : Unpacked<Format>::kPlanes;
  constexpr std::size_t kTiles = kPlanes == 1 ? 2 : 1;
  constexpr std::size_t kMostRows = kTiles * 16, kUnitSums = kMostRows * 32;
  const RowLayout& layout = *job.layout;
  const std::size_t blocks = layout.padded_cols / layout.block;
  const std::size_t rows = job.last_row - job.first_row;
  const std::size_t units = (rows + kMostRows - 1) / kMostRows;
  const std::size_t panel_bytes = job.w->panel_bytes(), bytes = kSteps * Format::kBytes;

  const std::size_t unpacked_bytes = kDirect ? 0 : kSteps * kPlanes * kTile;
  std::byte* const unpacked =
      integer_scratch(unpacked_bytes + kUnitValues * 4 + units * kUnitSums * sizeof(float));
  auto* const sums = reinterpret_cast<std::int32_t*>(unpacked + unpacked_bytes);
  auto* const acc = reinterpret_cast<float*>(sums + kUnitValues);

  const std::byte* panel = job.w->data + job.first_panel * panel_bytes;
  if constexpr (!kDirect)
    for (std::size_t q = 0; q < kSteps; ++q)
      unpack<Format>(panel, q, unpacked + q * kPlanes * kTile);
  const Tiles configured(layout.tile_rows());
  Unit unit;
  unit.chunk = layout.chunk();
  unit.next_rows = layout.padded_cols / 64 * layout.chunk();
  unit.unpacked = unpacked;
  unit.sum = sums;
  unit.drain.sum = sums;
  unit.fetch_lines = (bytes / 64 + units * kSteps - 1) / (units * kSteps);
  // Of a panel that is not finished row by row: after its last unit is drained.
  const auto take = [&](std::size_t p) {
    if (unit.drain.epilogue.kind == Epilogue::Kind::kTake)
      job.sink->take(p, job.first_row, rows, acc, 32);
  };
  for (std::size_t p = job.first_panel; p < job.last_panel; ++p, panel += panel_bytes) {
    for (std::size_t b = 0; b < blocks; ++b) {
      const bool last_block = b + 1 == blocks;
      const std::byte* const next_panel = last_block ? panel + panel_bytes : panel;
      const bool more = !last_block || p + 1 < job.last_panel;
      unit.next_q = last_block ? 0 : (b + 1) * kSteps;
      unit.weights = kDirect ? Format::block(panel, b * kSteps) : unpacked;
      unit.fetch = Format::block(next_panel, unit.next_q);
      for (std::size_t i = 0; i < units; ++i) {
        const std::size_t first = i * kMostRows, row = job.first_row + first;
        const std::size_t count = std::min(kMostRows, rows - first);
        unit.x = job.x + layout.value_offset(row, b * layout.block);
        unit.next_panel = more && i + 1 == units ? next_panel : nullptr;
        run_unit<Format, kTiles, kDirect, kSteps>(unit, kTiles == 2 && count > 16);
        unit.fetch += unit.fetch_lines * kSteps * 64;

        auto& drain = unit.drain;
        if (i == 0 && b == 0 && p > job.first_panel) take(p - 1);
        drain.rows = count;
        drain.scales = layout.scales(job.x) + b * layout.padded_rows() + row;
        drain.out = acc + i * kUnitSums;
        drain.in = b == 0 ? kMinusZeros.values : drain.out;
        drain.in_bytes = b == 0 ? 0 : 128;
        drain.to = Drain::To::kSums;
        if (!last_block) continue;
        if (i == 0) drain.epilogue = epilogue_of(*job.w, *job.sink, p);
        drain.to = target_of(drain.epilogue);
        drain.panel_scales = reinterpret_cast<const float*>(panel);
        drain.panel = p;
        drain.first_row = row;
      }
    }
  }
  store_and_drain<kPlanes>(unit);
  take(job.last_panel - 1);
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

float quantize(const float* x, std::size_t cols, std::size_t block, std::int8_t* q,
               std::size_t stride) {
  return kIntegerAvx512.quantize(x, cols, block, q, stride);
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
