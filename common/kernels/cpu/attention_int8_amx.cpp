#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "common/kernels/cpu/amx.hpp"
#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/rounding_simd.hpp"

// int8 pages for many units with tiles. A step is one page for a group of up to 16 units:
//   scores: keys are B tiles as they stand (16 quads of d x 16 tokens), queries the A tiles
//   scale:  products to scores in vectors, the state takes the maxima, for all units at once: a
//           branch for each unit whose maximum moves would often be guessed wrong
//   soften: scores to p * vs, the state takes l
//   pack:   p * vs to u8
//   values: weights are the A tiles, values B tiles (16 quads of tokens x 16 d); sums are added to
//   o
// Vectors take longer than tiles, and what a tile stores can be read only after a while. So the
// scores of the next step are computed while this one is softened, and the values of the step
// before are added while this one is packed. o is therefore scaled to a new maximum not when that
// is found but before the values of its page are added.
// What bounds all this: for some 180 cycles after any tile instruction the CPU measured (Sapphire
// Rapids) takes zmm floating point at half its rate, and a tile product costs 300 ns where none was
// for half a microsecond. Phases without tiles were slower than tiles throughout.
namespace moesaic::attention_detail {
namespace {

constexpr std::size_t kGroup = 16;                 // units of a step: rows of a tile
constexpr std::size_t kColumns = 16;               // of 4 bytes of a tile
constexpr std::size_t kKeyLine = 4 * kPageTokens;  // bytes of four d of all keys

/// Groups that a page is read for at once: more need more of the nearest cache, fewer read it more
/// often.
constexpr std::size_t kGroupsAtOnce = 6;
constexpr std::size_t kColumnsKept = 4;  // of sums between tiles and o

/// What vectors make of a step for its tiles.
struct alignas(64) Weights8 {
  std::uint8_t weights[kGroup][kPageTokens];
  float from_255[kGroup];
  float rescale[kGroup];  ///< of l and o: 1 where the maximum did not move
  float maxima[kGroup];
  std::uint32_t moved = 0;  ///< units whose maximum this page moved
};

struct alignas(64) Memory {
  std::int32_t scores[2][kGroup][kPageTokens];  ///< of this step and of the next
  Weights8 weights[2];                          ///< of this step and of the one before
  std::int32_t sums[kColumnsKept][kGroup][kColumns];
  std::uint32_t most[kGroup][16];  ///< largest score, then bits of the largest p * vs, by lanes
  float to_255[kGroup];
  std::int32_t offsets[kBlockUnits][kColumns];  ///< minus `Int8Query::offset`
};

/// A group of units on a page.
struct Step {
  std::size_t page = 0;
  std::size_t unit = 0;
  std::size_t units = 0;
};

/// Scores of a group, two columns of 16 tokens at a time: C tiles 0 and 1, then 2 and 3.
class Scores {
 public:
  static constexpr std::size_t kParts = 3;

  Scores(const PageRun& run, const Step& step, const Memory& memory,
         std::int32_t (*out)[kPageTokens])
      : keys_(run.pages[step.page]),
        q_(run.q + step.unit * int8_query_stride(run.layout.dim)),
        offsets_(memory.offsets[step.unit]),
        out_(out[0]),
        stride_(int8_query_stride(run.layout.dim)) {}

  /// Sums begin in one part and are stored in the next.
  MOESAIC_AMX_INLINE void part(std::size_t i) const {
    switch (i) {
      case 0:
        MOESAIC_TILE_LOAD(0, offsets_, 64);
        MOESAIC_TILE_LOAD(1, offsets_, 64);
        for (std::size_t d = 0; d < stride_; d += 64) {
          const std::byte* keys = keys_ + d * kPageTokens;
          MOESAIC_TILE_LOAD(4, q_ + d, stride_);
          MOESAIC_TILE_GAP();
          MOESAIC_TILE_LOAD(6, keys, kKeyLine);
          MOESAIC_TILE_GAP();
          MOESAIC_TILE_DOT(tdpbsud, 0, 4, 6);
          MOESAIC_TILE_GAP();
          MOESAIC_TILE_LOAD(7, keys + 64, kKeyLine);
          MOESAIC_TILE_GAP();
          MOESAIC_TILE_DOT(tdpbsud, 1, 4, 7);
          MOESAIC_TILE_GAP();
        }
        return;
      case 1:
        MOESAIC_TILE_LOAD(2, offsets_, 64);
        MOESAIC_TILE_LOAD(3, offsets_, 64);
        for (std::size_t d = 0; d < stride_; d += 64) {
          const std::byte* keys = keys_ + d * kPageTokens + 128;
          MOESAIC_TILE_LOAD(4, q_ + d, stride_);
          MOESAIC_TILE_GAP();
          MOESAIC_TILE_LOAD(6, keys, kKeyLine);
          MOESAIC_TILE_GAP();
          MOESAIC_TILE_DOT(tdpbsud, 2, 4, 6);
          MOESAIC_TILE_GAP();
          MOESAIC_TILE_LOAD(7, keys + 64, kKeyLine);
          MOESAIC_TILE_GAP();
          MOESAIC_TILE_DOT(tdpbsud, 3, 4, 7);
          MOESAIC_TILE_GAP();
        }
        MOESAIC_TILE_STORE(0, out_, kPageTokens * 4);
        MOESAIC_TILE_STORE(1, out_ + 16, kPageTokens * 4);
        return;
      default:
        MOESAIC_TILE_STORE(2, out_ + 32, kPageTokens * 4);
        MOESAIC_TILE_STORE(3, out_ + 48, kPageTokens * 4);
    }
  }

 private:
  const std::byte* keys_;
  const std::byte* q_;
  const std::int32_t* offsets_;
  std::int32_t* out_;
  std::size_t stride_;
};

/// Lane by lane, of f32 or of u32.
template <bool kFloat>
MOESAIC_AMX_INLINE __m512i larger(__m512i a, __m512i b) {
  if constexpr (!kFloat) return _mm512_max_epu32(a, b);
  return _mm512_castps_si512(_mm512_max_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b)));
}

/// The largest lane of each of 16 vectors.
template <bool kFloat>
MOESAIC_AMX_INLINE __m512i largest_of_each(const std::uint32_t (*vectors)[16]) {
  // Halves of two vectors side by side, then quarters of four, ...: lane i is of vector i.
  __m512i a[8];
#pragma GCC unroll 8
  for (std::size_t i = 0; i < 8; ++i) {
    const __m512i y = _mm512_load_si512(vectors[i]), z = _mm512_load_si512(vectors[i + 8]);
    a[i] = larger<kFloat>(_mm512_shuffle_i32x4(y, z, 0x44), _mm512_shuffle_i32x4(y, z, 0xee));
  }
  __m512i b[4];
#pragma GCC unroll 4
  for (std::size_t i = 0; i < 4; ++i)
    b[i] = larger<kFloat>(_mm512_shuffle_i32x4(a[i], a[i + 4], 0x88),
                          _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd));
  __m512i c[2];
#pragma GCC unroll 2
  for (std::size_t i = 0; i < 2; ++i)
    c[i] = larger<kFloat>(_mm512_unpacklo_epi64(b[i], b[i + 2]),
                          _mm512_unpackhi_epi64(b[i], b[i + 2]));
  const __m512 y = _mm512_castsi512_ps(c[0]), z = _mm512_castsi512_ps(c[1]);
  const __m512i d = larger<kFloat>(_mm512_castps_si512(_mm512_shuffle_ps(y, z, 0x88)),
                                   _mm512_castps_si512(_mm512_shuffle_ps(y, z, 0xdd)));
  // 128-bit lane k of d holds the vectors 8 (k & 1) + 4 (k >> 1) + {0, 2, 1, 3}.
  return _mm512_permutexvar_epi32(
      _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15), d);
}

/// Tokens of a step's page that a unit sees.
inline std::size_t seen(const PageRun& run, const Step& step, std::size_t unit) {
  const std::size_t first = step.page * kPageTokens, visible = run.visible[unit];
  return visible > first ? visible - first : 0;
}

/// Products of U units of a group from its `group_unit`th on become scores, in place, and the
/// largest of each lane is kept.
template <std::size_t U, bool kMask>
MOESAIC_AMX_INLINE void scale_scores(const PageRun& run, const Step& step, std::size_t group_unit,
                                     std::int32_t (*scores)[kPageTokens], Memory& memory) {
  const auto* key_scales =
      reinterpret_cast<const float*>(run.pages[step.page] + run.layout.scales_offset());
#pragma GCC unroll 4
  for (std::size_t u = group_unit; u < group_unit + U; ++u) {
    const __m512 qs = _mm512_set1_ps(run.query[step.unit + u].scale);
    const std::size_t tokens = seen(run, step, step.unit + u);
    __m512 v[4];
#pragma GCC unroll 4
    for (std::size_t j = 0; j < 4; ++j) {
      v[j] = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(scores[u] + 16 * j)),
                           _mm512_mul_ps(qs, _mm512_loadu_ps(key_scales + 16 * j)));
      if constexpr (kMask)
        v[j] = _mm512_mask_mov_ps(_mm512_set1_ps(kMasked), lanes16(16 * j, tokens), v[j]);
      _mm512_store_ps(scores[u] + 16 * j, v[j]);
    }
    _mm512_store_ps(memory.most[u],
                    _mm512_max_ps(_mm512_max_ps(v[0], v[1]), _mm512_max_ps(v[2], v[3])));
  }
}

/// The maxima of a group after a page, and what they make of its sums.
MOESAIC_AMX_INLINE void move_maxima(const State& state, const Step& step, const Memory& memory,
                                    Weights8& weights) {
  const __mmask16 units = lanes16(0, step.units);
  float* const m = state.m + step.unit;
  const __m512 before = _mm512_maskz_loadu_ps(units, m);
  const __m512 top = _mm512_castsi512_ps(largest_of_each<true>(memory.most));
  const __mmask16 moved = _mm512_mask_cmp_ps_mask(units, top, before, _CMP_GT_OQ);
  const __m512 now = _mm512_mask_mov_ps(before, moved, top);
  _mm512_mask_storeu_ps(m, units, now);
  _mm512_store_ps(weights.maxima, now);
  _mm512_store_ps(weights.rescale, cpu::exp16_bounded(_mm512_sub_ps(before, now)));
  weights.moved = moved;
}

/// Scores of U units of a group from its `group_unit`th on become p * vs, in place; their states
/// take p.
template <std::size_t U, bool kMask>
MOESAIC_AMX_INLINE void soften(const PageRun& run, const Step& step, std::size_t group_unit,
                               std::int32_t (*scores)[kPageTokens], std::uint32_t (*most)[16],
                               const Weights8& weights) {
  const State& state = run.state;
  const std::size_t page = step.page, unit = step.unit + group_unit;
  scores += group_unit;
  most += group_unit;
  const float* value_scales =
      reinterpret_cast<const float*>(run.pages[page] + run.layout.scales_offset()) + kPageTokens;
  __m512 v[4 * U];
#pragma GCC unroll 8
  for (std::size_t i = 0; i < 4 * U; ++i)
    v[i] = _mm512_sub_ps(_mm512_load_ps(scores[i / 4] + 16 * (i % 4)),
                         _mm512_set1_ps(weights.maxima[group_unit + i / 4]));
  cpu::exp_nonpositive(v);
  __m512 l[U];
  __m512i largest[U];
  __mmask16 lanes[4 * U];
#pragma GCC unroll 2
  for (std::size_t u = 0; u < U; ++u) {
    l[u] = _mm512_mul_ps(_mm512_loadu_ps(state.l + (unit + u) * 16),
                         _mm512_set1_ps(weights.rescale[group_unit + u]));
    largest[u] = _mm512_castps_si512(_mm512_set1_ps(1e-30F));
    for (std::size_t j = 0; kMask && j < 4; ++j)
      lanes[4 * u + j] = lanes16(16 * j, seen(run, step, unit + u));
  }
#pragma GCC unroll 4
  for (std::size_t j = 0; j < 4; ++j) {
    const __m512 vs = _mm512_loadu_ps(value_scales + 16 * j);
#pragma GCC unroll 2
    for (std::size_t u = 0; u < U; ++u) {
      __m512& x = v[4 * u + j];
      if constexpr (kMask) x = _mm512_maskz_mov_ps(lanes[4 * u + j], x);
      l[u] = _mm512_add_ps(l[u], x);
      x = _mm512_mul_ps(x, vs);
      if constexpr (kMask) x = _mm512_maskz_mov_ps(lanes[4 * u + j], x);
      largest[u] = _mm512_max_epu32(largest[u], _mm512_castps_si512(x));
      _mm512_store_ps(scores[u] + 16 * j, x);
    }
  }
#pragma GCC unroll 2
  for (std::size_t u = 0; u < U; ++u) {
    _mm512_storeu_ps(state.l + (unit + u) * 16, l[u]);
    _mm512_store_si512(most[u], largest[u]);
  }
}

/// p * vs of a group become u8, some units at a time.
class Pack {
 public:
  MOESAIC_AMX Pack(const Step& step, const std::int32_t (*scores)[kPageTokens], Memory& memory,
                   Weights8& weights)
      : units_(step.units), scores_(scores), to_255_(memory.to_255), weights_(weights) {
    const __m512 steps = _mm512_set1_ps(255.0F);
    const __m512 pm = _mm512_castsi512_ps(largest_of_each<false>(memory.most));
    _mm512_storeu_ps(memory.to_255, _mm512_div_ps(steps, pm));
    _mm512_storeu_ps(weights.from_255, _mm512_div_ps(pm, steps));
  }

  MOESAIC_AMX_INLINE void units(std::size_t count) {
    // Packing works within 128 bits: groups of four bytes come out as 0 4 8 12 | 1 5 9 13 | ...
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (const std::size_t end = std::min(next_ + count, units_); next_ < end; ++next_) {
      const __m512 to_255 = _mm512_set1_ps(to_255_[next_]);
      __m512i w[4];
#pragma GCC unroll 4
      for (std::size_t j = 0; j < 4; ++j)
        w[j] = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(scores_[next_] + 16 * j), to_255));
      const __m512i bytes =
          _mm512_packus_epi16(_mm512_packus_epi32(w[0], w[1]), _mm512_packus_epi32(w[2], w[3]));
      _mm512_store_si512(weights_.weights[next_], _mm512_permutexvar_epi32(order, bytes));
    }
  }

 private:
  std::size_t next_ = 0;
  std::size_t units_;
  const std::int32_t (*scores_)[kPageTokens];
  const float* to_255_;
  Weights8& weights_;
};

/// o += sum * scale for 16 d of a unit.
MOESAIC_AMX_INLINE void add_sum(const std::int32_t* sum, float scale, float* o) {
  _mm512_storeu_ps(o, _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sum)),
                                      _mm512_set1_ps(scale), _mm512_loadu_ps(o)));
}

/// The same for 16 units, or as many as there are.
MOESAIC_AMX_INLINE void add_sums(const std::int32_t (*sums)[kColumns], const float* scale, float* o,
                                 std::size_t dim, std::size_t units) {
  if (units >= kGroup) {
#pragma GCC unroll 16
    for (std::size_t u = 0; u < kGroup; ++u) add_sum(sums[u], scale[u], o + u * dim);
  } else {
    for (std::size_t u = 0; u < units; ++u) add_sum(sums[u], scale[u], o + u * dim);
  }
}

/// The products of weights and values of a group, added to o column by column of 16 d: while the
/// tiles work on one, the sums of the one before are stored, and those of earlier ones are added.
class Values {
 public:
  MOESAIC_AMX Values(const PageRun& run, const Step& step, const Weights8& weights,
                     std::int32_t (*sums)[kGroup][kColumns])
      : values_(run.pages[step.page] + run.layout.values_offset()),
        weights_(weights),
        sums_(sums),
        o_(run.state.o + step.unit * run.layout.dim),
        dim_(run.layout.dim),
        units_(step.units) {
    MOESAIC_TILE_LOAD(4, weights.weights[0], kPageTokens);
    for (std::uint32_t moved = weights.moved; moved != 0; moved &= moved - 1) {
      const auto u = static_cast<std::size_t>(std::countr_zero(moved));
      const __m512 r = _mm512_set1_ps(weights.rescale[u]);
      for (float* o = o_ + u * dim_; o < o_ + (u + 1) * dim_; o += 16)
        _mm512_storeu_ps(o, _mm512_mul_ps(_mm512_loadu_ps(o), r));
    }
  }

  std::size_t columns() const { return dim_ / kColumns; }
  /// Stages that follow the last column.
  static constexpr std::size_t kDelay = kColumnsKept - 1;

  /// Stages 0 .. columns() + kDelay - 1, in order; kOdd: of the stage.
  template <bool kOdd>
  MOESAIC_AMX_INLINE void stage(std::size_t c) const {
    if (c < columns()) multiply<kOdd>(c);
    if (c >= 1 && c - 1 < columns()) store<!kOdd>(sums_[(c - 1) % kColumnsKept]);
    if (c >= kDelay) add(c - kDelay, sums_[(c - kDelay) % kColumnsKept]);
  }

 private:
  template <bool kOdd>
  MOESAIC_AMX_INLINE void multiply(std::size_t c) const {
    const std::size_t d = c * kColumns, part = d / kRun * kRun;
    const std::byte* values = values_ + part * kPageTokens + (d - part) * 4;
    const std::size_t line = 4 * std::min(kRun, dim_ - part);
    if constexpr (kOdd) {
      MOESAIC_TILE_LOAD(7, values, line);
      MOESAIC_TILE_ZERO(1);
      MOESAIC_TILE_DOT(tdpbusd, 1, 4, 7);
    } else {
      MOESAIC_TILE_LOAD(6, values, line);
      MOESAIC_TILE_ZERO(0);
      MOESAIC_TILE_DOT(tdpbusd, 0, 4, 6);
    }
  }

  template <bool kOdd>
  MOESAIC_AMX_INLINE void store(std::int32_t (*sums)[kColumns]) const {
    if constexpr (kOdd)
      MOESAIC_TILE_STORE(1, sums, 64);
    else
      MOESAIC_TILE_STORE(0, sums, 64);
  }

  MOESAIC_AMX_INLINE void add(std::size_t c, const std::int32_t (*sums)[kColumns]) const {
    add_sums(sums, weights_.from_255, o_ + c * kColumns, dim_, units_);
  }

  const std::byte* values_;
  const Weights8& weights_;
  std::int32_t (*sums_)[kGroup][kColumns];
  float* o_;
  std::size_t dim_;
  std::size_t units_;
};

/// The steps of a run in order: for a few groups at once page by page.
class Steps {
 public:
  explicit Steps(const PageRun& run) : run_(run) { begin(0); }

  const Step& now() const { return now_; }
  bool done() const { return first_ >= run_.units; }
  void next() {
    do {
      now_.unit += kGroup;
      if (now_.unit >= end_) {
        now_.unit = first_;
        if (++now_.page >= last_) return begin(end_);
      }
    } while (run_.visible[last_unit()] <= now_.page * kPageTokens);
    now_.units = last_unit() + 1 - now_.unit;
  }

 private:
  std::size_t last_unit() const { return std::min(now_.unit + kGroup, run_.units) - 1; }
  /// The groups from `unit` on, without those that see nothing of the pages.
  void begin(std::size_t unit) {
    for (first_ = unit; !done(); first_ += kGroup) {
      end_ = std::min(first_ + kGroupsAtOnce * kGroup, run_.units);
      last_ = std::min(run_.last_page, (run_.visible[end_ - 1] + kPageTokens - 1) / kPageTokens);
      now_.page = run_.first_page;
      now_.unit = first_;
      now_.units = last_unit() + 1 - first_;
      if (run_.visible[last_unit()] > now_.page * kPageTokens) return;
    }
  }

  const PageRun& run_;
  Step now_;
  std::size_t first_ = 0, end_ = 0;  ///< units
  std::size_t last_ = 0;             ///< page
};

/// The page that comes next to be read, line by line.
class Ahead {
 public:
  void begin(const PageRun& run, std::size_t page) {
    at_ = run.pages[std::min(page + 1, run.known_pages - 1)];
    left_ = run.layout.bytes() / 64;
  }
  MOESAIC_AMX_INLINE void lines(std::size_t n) {
    n = std::min(n, left_);
    left_ -= n;
    for (; n > 0; --n, at_ += 64) _mm_prefetch(at_, _MM_HINT_T1);
  }

 private:
  const std::byte* at_ = nullptr;
  std::size_t left_ = 0;
};

/// Calls fn(std::integral_constant<size_t, U>, std::bool_constant<kMask>, u) for the units of a
/// step, two at a time as long as there are two, and `between`(u) before each two of a whole group.
template <class Fn, class Between>
MOESAIC_AMX_INLINE void for_units(const PageRun& run, const Step& step, Fn fn, Between between) {
  const std::size_t all_seen = (step.page + 1) * kPageTokens;
  for (std::size_t u = 0; u < kGroup; u += 2) {
    between(u);
    if (u >= step.units) continue;
    if (u + 1 == step.units)
      fn(std::integral_constant<std::size_t, 1>(), std::true_type(), u);
    else if (run.visible[step.unit + u] < all_seen)
      fn(std::integral_constant<std::size_t, 2>(), std::true_type(), u);
    else
      fn(std::integral_constant<std::size_t, 2>(), std::false_type(), u);
  }
}

/// Softens `step` while `next` computes its scores (null: nothing follows).
MOESAIC_AMX_INLINE void soften_group(const PageRun& run, const Step& step, const Scores* next,
                                     Ahead& ahead, Memory& memory,
                                     std::int32_t (*scores)[kPageTokens], Weights8& weights) {
  const std::size_t lines = run.layout.bytes() / 64 / (kGroupsAtOnce * kGroup / 2) + 1;
  static_assert(Scores::kParts == 3);
  for_units(
      run, step,
      [&]<class U, class Mask>(U, Mask, std::size_t u)
          MOESAIC_AMX_LAMBDA { scale_scores<U::value, Mask::value>(run, step, u, scores, memory); },
      [&](std::size_t u) MOESAIC_AMX_LAMBDA {
        if (next != nullptr && u == 0) next->part(0);
      });
  move_maxima(run.state, step, memory, weights);
  for_units(
      run, step,
      [&]<class U, class Mask>(U, Mask, std::size_t u) MOESAIC_AMX_LAMBDA {
        soften<U::value, Mask::value>(run, step, u, scores, memory.most, weights);
      },
      [&](std::size_t u) MOESAIC_AMX_LAMBDA {
        if (next != nullptr && (u == 0 || u == kGroup / 2)) next->part(u == 0 ? 1 : 2);
        ahead.lines(lines);
      });
}

/// Packs a step while the values of the one before are added; either may be missing.
MOESAIC_AMX_INLINE void pack_group(Pack* pack, const Values* values) {
  if (values == nullptr) return pack->units(kGroup);
  const std::size_t stages = values->columns() + Values::kDelay;
  const std::size_t units = (kGroup + values->columns() - 1) / values->columns();
  for (std::size_t c = 0; c < stages; c += 2) {
    values->stage<false>(c);
    if (pack != nullptr) pack->units(units);
    if (c + 1 < stages) values->stage<true>(c + 1);
    if (pack != nullptr) pack->units(units);
  }
}

}  // namespace

/// Tiles take 16 rows of units: what stands behind the last unit is computed and never used.
MOESAIC_AMX void int8_pages_amx(const PageRun& run) {
  Memory memory;
  for (std::size_t u = 0; u < run.units; ++u)
    _mm512_store_si512(memory.offsets[u], _mm512_set1_epi32(-run.query[u].offset));
  Steps steps(run);
  if (steps.done()) return;
  const cpu::WholeTiles tiles;
  {
    const Scores first(run, steps.now(), memory, memory.scores[0]);
    for (std::size_t i = 0; i < Scores::kParts; ++i) first.part(i);
  }
  Step before;
  Ahead ahead;
  bool begun = false;
  for (std::size_t turn = 0; !steps.done(); turn ^= 1, begun = true) {
    const Step step = steps.now();
    if (!begun || step.page != before.page) ahead.begin(run, step.page);
    steps.next();
    Weights8& weights = memory.weights[turn];
    if (steps.done()) {
      soften_group(run, step, nullptr, ahead, memory, memory.scores[turn], weights);
    } else {
      const Scores next(run, steps.now(), memory, memory.scores[turn ^ 1]);
      soften_group(run, step, &next, ahead, memory, memory.scores[turn], weights);
    }
    Pack pack(step, memory.scores[turn], memory, weights);
    if (begun) {
      const Values values(run, before, memory.weights[turn ^ 1], memory.sums);
      pack_group(&pack, &values);
    } else {
      pack_group(&pack, nullptr);
    }
    before = step;
    if (steps.done()) {
      const Values values(run, before, weights, memory.sums);
      pack_group(nullptr, &values);
    }
  }
}

}  // namespace moesaic::attention_detail
