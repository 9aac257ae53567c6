#include "common/kernels/cpu/attention_vision_amx.hpp"

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/cpu/amx.hpp"
#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/cpu/attention_vision_steps.hpp"
#include "common/kernels/cpu/attention_vision_tiles.hpp"
#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"

// Three things run side by side, each in the shadow of the others: the softmax of one block of
// scores, the product of the weights of the block before with its values, and the scores of the
// block after. Vector instructions do the first while the tiles work at the other two.
namespace moesaic::attention_detail {
namespace {

using namespace vision_steps;

/// Units that pass over a block of keys and values while it stays in L2.
constexpr std::size_t kUnits = 24;

/// Running state of up to kUnits units of 32 queries, and two blocks of scores of a pair.
struct Workspace {
  float* m = nullptr;      ///< [kUnits][32]
  float* l = nullptr;      ///< [kUnits][32][16]
  std::byte* o = nullptr;  ///< [kUnits][2][value_tiles] tiles [16 queries][16 d] f32
  /// [kPair][2][16] tiles [16 queries][16 keys] f32; weights replace them
  std::byte* scores[2] = {};

  static std::size_t bytes(const VisionHeadLayout& layout) {
    return kUnits * (kUnit * 17 * sizeof(float) + 2 * layout.value_tiles * kTileBytes) +
           2 * kPair * kScoreBytes;
  }
  Workspace(const VisionHeadLayout& layout, std::byte* memory) {
    scores[0] = memory;
    scores[1] = memory + kPair * kScoreBytes;
    o = memory + 2 * kPair * kScoreBytes;
    l = reinterpret_cast<float*>(o + kUnits * 2 * layout.value_tiles * kTileBytes);
    m = l + kUnits * kUnit * 16;
  }
};

template <Products kProducts>
MOESAIC_AMX_INLINE void begin_step(const Step& x) {
  constexpr bool kFour = kProducts == Products::kFour;
  if (x.begin == Step::Begin::kZero) {
    MOESAIC_TILE_ZERO(0);
    MOESAIC_TILE_ZERO(1);
    MOESAIC_TILE_ZERO(2);
    MOESAIC_TILE_ZERO(3);
  } else if (x.begin == Step::Begin::kLoad) {
    MOESAIC_TILE_LOAD(0, x.c1, 64);
    MOESAIC_TILE_LOAD(2, x.c2, 64);
    if constexpr (kFour) {
      MOESAIC_TILE_LOAD(1, x.c1 + kTileBytes, 64);
      MOESAIC_TILE_LOAD(3, x.c2 + kTileBytes, 64);
    }
  }
}

/// Instructions 2 * kQuarter and the next of a step's eight. Vector instructions run beside those
/// of the tiles only where the two alternate closely.
template <Products kProducts, int kQuarter>
MOESAIC_AMX_INLINE void quarter_step(const Step& x) {
  constexpr bool kFour = kProducts == Products::kFour;
  if constexpr (kQuarter == 0) {
    MOESAIC_TILE_LOAD(6, x.b1, 64);
    MOESAIC_TILE_GAP();
    MOESAIC_TILE_LOAD(4, x.a1, 64);
  } else if constexpr (kQuarter == 1) {
    MOESAIC_TILE_DOT(tdpbf16ps, 0, 4, 6);
    MOESAIC_TILE_GAP();
    if constexpr (kFour) MOESAIC_TILE_LOAD(7, x.b2, 64);
  } else if constexpr (kQuarter == 2) {
    MOESAIC_TILE_LOAD(5, x.a2, 64);
    MOESAIC_TILE_GAP();
    if constexpr (kFour) MOESAIC_TILE_DOT(tdpbf16ps, 1, 4, 7);
  } else {
    MOESAIC_TILE_DOT(tdpbf16ps, 2, 5, 6);
    MOESAIC_TILE_GAP();
    if constexpr (kFour) MOESAIC_TILE_DOT(tdpbf16ps, 3, 5, 7);
  }
}

template <Products kProducts>
MOESAIC_AMX_INLINE void end_step(const Step& x) {
  if (!x.end) return;
  MOESAIC_TILE_STORE(0, x.c1, 64);
  MOESAIC_TILE_STORE(2, x.c2, 64);
  if constexpr (kProducts == Products::kFour) {
    MOESAIC_TILE_STORE(1, x.c1 + kTileBytes, 64);
    MOESAIC_TILE_STORE(3, x.c2 + kTileBytes, 64);
  }
}

/// A step by itself.
template <Products kProducts>
MOESAIC_AMX_INLINE void whole_step(const Step& x) {
  begin_step<kProducts>(x);
  quarter_step<kProducts, 0>(x);
  quarter_step<kProducts, 1>(x);
  quarter_step<kProducts, 2>(x);
  quarter_step<kProducts, 3>(x);
  end_step<kProducts>(x);
}

/// One query of an item on its way from scores to weights.
struct Row {
  std::byte* s;  ///< its line in the first tile of scores
  std::size_t keys;
  float m;
  float* partial;  ///< [16] sums of weights

  MOESAIC_AMX_INLINE __m512 score(std::size_t t) const {
    return _mm512_load_ps(s + t / 16 * kTileBytes);
  }
};

/// Scores this far below the maximum or less need no clamp in exp: -86 * log2(e) > -126.
constexpr float kNear = 86;
/// Of maxima beyond, m - kNear is not exact enough to tell.
constexpr float kMostMaximum = 1e6F;

/// True if 256 scores are neither so far above the maximum that it moves nor far below it.
/// Compares, which run on a port that the tiles leave to vectors, take the place of minima and
/// maxima, which do not.
MOESAIC_AMX_INLINE bool all_near(const Row& x) {
  const __m512 high = _mm512_set1_ps(x.m + kVisionSlack), low = _mm512_set1_ps(x.m - kNear);
  __mmask16 near[4];
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i)
    near[i] = _mm512_cmp_ps_mask(x.score(16 * i), high, _CMP_LE_OQ);
#pragma GCC unroll 16
  for (std::size_t i = 0; i < 16; ++i) {
    const __m512 s = x.score(16 * i);
    if (i >= 4) near[i % 4] = _mm512_mask_cmp_ps_mask(near[i % 4], s, high, _CMP_LE_OQ);
    near[i % 4] = _mm512_mask_cmp_ps_mask(near[i % 4], s, low, _CMP_GE_OQ);
  }
  return (near[0] & near[1] & near[2] & near[3]) == 0xffff && std::fabs(x.m) < kMostMaximum;
}

/// Moves the maximum of a row if its scores ask for it.
MOESAIC_AMX void raise_maximum(Row& x, Item& item, std::size_t row) {
  __m512 max = _mm512_set1_ps(kMasked);
  for (std::size_t t = 0; t < x.keys; t += 16)
    max = _mm512_mask_max_ps(max, lanes16(t, x.keys), max, x.score(t));
  if (_mm512_cmp_ps_mask(max, _mm512_set1_ps(x.m + kVisionSlack), _CMP_GT_OQ) == 0) return;
  const float top = _mm512_reduce_max_ps(max);
  const __m512 r = cpu::exp16_bounded(_mm512_set1_ps(x.m - top));
  _mm512_store_ps(x.partial, _mm512_mul_ps(_mm512_load_ps(x.partial), r));
  item.moved |= std::uint64_t{1} << row;
  item.factor[row] = _mm512_cvtss_f32(r);
  x.m = top;
}

enum class Scores { kClose, kAny, kPart };

constexpr std::size_t kWide = 4;

/// exp of x in [-kNear - 1, kVisionSlack + 1], the bits of `exp16_bounded`, of several vectors step
/// by step, so that none waits for its own last step. Rounds by additions: beside the tiles these
/// have two ports, rounding instructions share the one of multiplications.
/// @param between called half-way
template <class Fn>
MOESAIC_AMX_INLINE void exp_near(const __m512 (&x)[kWide], __m512 (&y)[kWide], Fn between) {
  const __m512 magic = _mm512_set1_ps(cpu::kRoundMagic);
  __m512 f[kWide], n[kWide];
#pragma GCC unroll 4
  for (std::size_t i = 0; i < kWide; ++i) f[i] = _mm512_mul_ps(x[i], _mm512_set1_ps(cpu::kLog2E));
#pragma GCC unroll 4
  for (std::size_t i = 0; i < kWide; ++i) n[i] = _mm512_add_ps(f[i], magic);
#pragma GCC unroll 4
  for (std::size_t i = 0; i < kWide; ++i) n[i] = _mm512_sub_ps(n[i], magic);
#pragma GCC unroll 4
  for (std::size_t i = 0; i < kWide; ++i) f[i] = _mm512_sub_ps(f[i], n[i]);
#pragma GCC unroll 4
  for (std::size_t i = 0; i < kWide; ++i) y[i] = _mm512_set1_ps(cpu::kExp2Poly[0]);
#pragma GCC unroll 5
  for (int k = 1; k < 6; ++k) {
    if (k == 2) between();
#pragma GCC unroll 4
    for (std::size_t i = 0; i < kWide; ++i)
      y[i] = _mm512_fmadd_ps(y[i], f[i], _mm512_set1_ps(cpu::kExp2Poly[k]));
  }
#pragma GCC unroll 4
  for (std::size_t i = 0; i < kWide; ++i) y[i] = _mm512_scalef_ps(y[i], n[i]);
}

/// 64 scores from key t on (fewer in a part) become weights, their sums go to l.
template <Scores kScores, class Fn>
MOESAIC_AMX_INLINE __m512 soften(const Row& x, std::size_t t, __m512 m, __m512 l, Fn between) {
  __m512 s[kWide], p[kWide];
#pragma GCC unroll 4
  for (std::size_t i = 0; i < kWide; ++i) s[i] = _mm512_sub_ps(x.score(t + 16 * i), m);
  if constexpr (kScores == Scores::kClose) {
    exp_near(s, p, between);
  } else {
    between();
#pragma GCC unroll 4
    for (std::size_t i = 0; i < kWide; ++i) p[i] = cpu::exp16_bounded(s[i]);
  }
#pragma GCC unroll 4
  for (std::size_t i = 0; i < kWide; ++i) {
    if constexpr (kScores == Scores::kPart)
      p[i] = _mm512_maskz_mov_ps(lanes16(t + 16 * i, x.keys), p[i]);
    l = _mm512_add_ps(l, p[i]);
  }
#pragma GCC unroll 2
  for (std::size_t i = 0; i < kWide; i += 2)
    _mm512_store_si512(x.s + (t / 16 + i) * kTileBytes,
                       reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(p[i + 1], p[i])));
  return l;
}

/// Half a row of 256 keys from key t on, and a step of the tiles beside it.
template <Scores kScores, Products kProducts>
MOESAIC_AMX [[gnu::noinline]] void soften_half(const Row& x, std::size_t t, const Step& step) {
  const __m512 m = _mm512_set1_ps(x.m);
  __m512 l = _mm512_load_ps(x.partial);
  constexpr bool kTiles = kProducts != Products::kNone;
  if constexpr (kTiles) begin_step<kProducts>(step);
  if constexpr (kTiles) quarter_step<kProducts, 0>(step);
  l = soften<kScores>(x, t, m, l, [&]() MOESAIC_AMX_LAMBDA {
    if constexpr (kTiles) quarter_step<kProducts, 1>(step);
  });
  if constexpr (kTiles) quarter_step<kProducts, 2>(step);
  l = soften<kScores>(x, t + 64, m, l, [&]() MOESAIC_AMX_LAMBDA {
    if constexpr (kTiles) quarter_step<kProducts, 3>(step);
  });
  if constexpr (kTiles) end_step<kProducts>(step);
  _mm512_store_ps(x.partial, l);
}

template <Scores kScores>
MOESAIC_AMX void soften_half(const Row& x, std::size_t t, const Step& step, Products products) {
  switch (products) {
    case Products::kNone:
      return soften_half<kScores, Products::kNone>(x, t, step);
    case Products::kTwo:
      return soften_half<kScores, Products::kTwo>(x, t, step);
    case Products::kFour:
      return soften_half<kScores, Products::kFour>(x, t, step);
  }
}

/// A row of fewer keys; weights beyond them become zero up to the end of their 64.
MOESAIC_AMX_INLINE void soften_part(const Row& x) {
  const __m512 m = _mm512_set1_ps(x.m);
  __m512 l = _mm512_load_ps(x.partial);
  for (std::size_t t = 0; t < x.keys; t += 16 * kWide)
    l = soften<Scores::kPart>(x, t, m, l, []() MOESAIC_AMX_LAMBDA {});
  _mm512_store_ps(x.partial, l);
}

/// o of the queries of `item` whose maximum moved.
MOESAIC_AMX_INLINE void rescale(const VisionHeadLayout& layout, Item& item, std::byte* o) {
  for (; item.moved != 0; item.moved &= item.moved - 1) {
    const auto row = static_cast<std::size_t>(__builtin_ctzll(item.moved));
    const __m512 r = _mm512_set1_ps(item.factor[row]);
    std::byte* at =
        o + (item.unit * 2 + row / 16) * layout.value_tiles * kTileBytes + row % 16 * 64;
    for (std::size_t d = 0; d < layout.value_tiles; ++d, at += kTileBytes)
      _mm512_store_ps(at, _mm512_mul_ps(_mm512_load_ps(at), r));
  }
}

/// Memory asked for into L2 in the course of a stage.
struct Fetch {
  const std::byte* at = nullptr;
  std::size_t lines = 0;
};

MOESAIC_AMX_INLINE void fetch(const Fetch& x, std::size_t part, std::size_t parts) {
  for (std::size_t i = x.lines * part / parts; i < x.lines * (part + 1) / parts; ++i)
    _mm_prefetch(x.at + i * 64, _MM_HINT_T1);
}

MOESAIC_AMX void run_steps(TileWork& tiles, std::size_t count) {
  for (; count > 0; --count) {
    Step step;
    if (tiles.next(step) == Products::kFour)
      whole_step<Products::kFour>(step);
    else
      whole_step<Products::kTwo>(step);
  }
}

/// Softmax of `item`, and the tiles' steps spread over it.
MOESAIC_AMX void run_stage(TileWork& tiles, Item& item, const Workspace& work,
                           const Fetch (&ahead)[2]) {
  const std::size_t rows = item.units * kUnit;
  std::size_t done = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    float& m = work.m[item.unit * kUnit + row];
    Row x{item.scores + row / 16 * 16 * kTileBytes + row % 16 * 64, item.keys, m,
          work.l + (item.unit * kUnit + row) * 16};
    fetch(ahead[0], row, rows);
    fetch(ahead[1], row, rows);
    if (item.keys < kVisionKeyBlock) {
      const std::size_t due = tiles.steps() * (row + 1) / rows;
      run_steps(tiles, due - done);
      done = due;
      raise_maximum(x, item, row);
      soften_part(x);
    } else {
      bool near = all_near(x);
      if (!near) {
        raise_maximum(x, item, row);
        near = all_near(x);
      }
      for (std::size_t half = 0; half < 2; ++half) {
        const std::size_t due = tiles.steps() * (2 * row + half + 1) / (2 * rows);
        if (due > done + 1) run_steps(tiles, due - done - 1);
        Step step;
        const Products products = due > done ? tiles.next(step) : Products::kNone;
        done = due;
        near ? soften_half<Scores::kClose>(x, half * 128, step, products)
             : soften_half<Scores::kAny>(x, half * 128, step, products);
      }
    }
    m = x.m;
  }
}

/// Queries first .. of one head against all keys.
struct HeadTask {
  const VisionHeadLayout* layout = nullptr;
  const std::byte* tiles = nullptr;
  std::size_t patches = 0;
  std::size_t first_unit = 0, units = 0;  ///< of 32 queries
};

/// Denormals count as zero, as the tiles have it; restored at the end.
class FlushDenormals {
 public:
  FlushDenormals() { _mm_setcsr(saved_ | 0x8040U); }
  ~FlushDenormals() { _mm_setcsr(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned saved_ = _mm_getcsr();
};

MOESAIC_AMX void attend(const HeadTask& task, const Workspace& work) {
  const VisionHeadLayout& layout = *task.layout;
  std::fill_n(work.m, kUnits * kUnit, kMasked);
  std::fill_n(work.l, kUnits * kUnit * 16, 0.0F);
  std::fill_n(work.o, kUnits * 2 * layout.value_tiles * kTileBytes, std::byte{0});
  const FlushDenormals flush;
  const cpu::WholeTiles config;
  const std::byte* q = task.tiles + task.first_unit * layout.pair_bytes();
  const std::byte* keys = task.tiles + layout.keys_offset();
  const std::byte* values = task.tiles + layout.values_offset();
  const std::size_t pairs = (task.units + kPair - 1) / kPair;
  const std::size_t items = (task.patches + kVisionKeyBlock - 1) / kVisionKeyBlock * pairs;
  Item ring[3];
  // Item i - 1 is softened at stage i, its weights meet their values at stage i + 1.
  for (std::size_t i = 0; i < items + 2; ++i) {
    Item& next = ring[i % 3];
    Item& now = ring[(i + 2) % 3];
    Item& last = ring[(i + 1) % 3];
    next.units = 0;
    if (i < items) {
      next.unit = i % pairs * kPair;
      next.units = std::min(kPair, task.units - next.unit);
      next.block = i / pairs;
      next.keys = std::min(kVisionKeyBlock, task.patches - next.block * kVisionKeyBlock);
      next.scores = work.scores[i % 2];
    }
    if (last.units != 0) rescale(layout, last, work.o);
    TileWork tiles(layout, q, keys, values, work.o, last, next);
    if (now.units == 0) {
      run_steps(tiles, tiles.steps());
      continue;
    }
    // This stage's share of the next block.
    Fetch ahead[2];
    const std::size_t ahead_first = (now.block + 1) * (kVisionKeyBlock / 32);
    if (ahead_first < layout.blocks) {
      const std::size_t count = std::min(kVisionKeyBlock / 32, layout.blocks - ahead_first);
      const auto share = [&](const std::byte* at, std::size_t bytes) {
        const std::size_t lines = count * bytes / 64, from = lines * now.unit / task.units;
        return Fetch{at + ahead_first * bytes + from * 64,
                     lines * (now.unit + now.units) / task.units - from};
      };
      ahead[0] = share(keys, layout.pair_bytes());
      ahead[1] = share(values, layout.value_bytes());
    }
    run_stage(tiles, now, work, ahead);
  }
}

/// out = o / (l folded by halves 8, 4, 2, 1), rounded; as `finish_unit`.
MOESAIC_AMX void finish(const HeadTask& task, const Workspace& work, std::size_t head,
                        std::size_t head_dim, const OperandOut& out) {
  const VisionHeadLayout& layout = *task.layout;
  for (std::size_t u = 0; u < task.units; ++u)
    for (std::size_t row = 0; row < kUnit; ++row) {
      const std::size_t patch = (task.first_unit + u) * kUnit + row;
      if (patch >= task.patches) return;
      const float* l = work.l + (u * kUnit + row) * 16;
      const __m256 l8 = _mm256_add_ps(_mm256_load_ps(l), _mm256_load_ps(l + 8));
      const __m128 l4 = _mm_add_ps(_mm256_castps256_ps128(l8), _mm256_extractf128_ps(l8, 1));
      const __m128 l2 = _mm_add_ps(l4, _mm_movehl_ps(l4, l4));
      const __m512 sum = _mm512_broadcastss_ps(_mm_add_ss(l2, _mm_movehdup_ps(l2)));
      const std::byte* o =
          work.o + (u * 2 + row / 16) * layout.value_tiles * kTileBytes + row % 16 * 64;
      Bf16* y = out.bf16(patch) + head * head_dim;
      for (std::size_t d = 0; d < layout.value_tiles; ++d) {
        // + 0 makes -0 into +0.
        const __m512 v = _mm512_add_ps(_mm512_load_ps(o + d * kTileBytes), _mm512_setzero_ps());
        _mm256_mask_storeu_epi16(y + d * 16, lanes16(d * 16, head_dim),
                                 to_bf16x16(_mm512_div_ps(v, sum)));
      }
    }
}

}  // namespace

void attention_vision_amx(const float* qkv, const RopeAngles& angles, std::size_t patches,
                          std::size_t heads, std::size_t head_dim, const OperandOut& out,
                          ThreadPool& pool) {
  const VisionHeadLayout layout(head_dim, patches);
  const VisionRows in{qkv, angles.cos, angles.sin, patches, heads, head_dim};
  thread_local AlignedBuffer packed;
  packed.reserve(heads * layout.bytes());
  std::byte* const memory = packed.data();
  pool.parallel_for(layout.blocks, [&](std::size_t block) {
    thread_local AlignedBuffer rows;
    rows.reserve(heads * 32 * layout.score_steps * 64);
    pack_vision_block(layout, in, block, memory, rows.data());
  });
  const std::size_t groups = (layout.blocks + kUnits - 1) / kUnits;
  pool.parallel_for(heads * groups, [&](std::size_t i) {
    thread_local AlignedBuffer scratch;
    scratch.reserve(Workspace::bytes(layout));
    const Workspace work(layout, scratch.data());
    const std::size_t head = i / groups, group = i % groups;
    const std::size_t first = group * layout.blocks / groups;
    const HeadTask task{.layout = &layout,
                        .tiles = memory + head * layout.bytes(),
                        .patches = patches,
                        .first_unit = first,
                        .units = (group + 1) * layout.blocks / groups - first};
    attend(task, work);
    finish(task, work, head, head_dim, out);
  });
}

}  // namespace moesaic::attention_detail
