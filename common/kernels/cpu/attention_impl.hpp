#pragma once

#include <cstddef>
#include <cstdint>

#include "common/kernels/attention.hpp"
#include "common/kernels/cpu/integer_level.hpp"

// What one instruction-set level provides for attention, and the page recurrence that drives it.
namespace moesaic::attention_detail {

/// Query vectors ("units": one row of one head) that a tile handles together.
inline constexpr std::size_t kTileUnits = 6;
/// Most units of a run over pages: they share what is read.
inline constexpr std::size_t kBlockUnits = 192;
/// Keys stand in runs of 64 tokens, bf16 values in parts of 64 d.
inline constexpr std::size_t kRun = 64;
/// The running maximum before any key, and the score of a key a unit may not see.
inline constexpr float kMasked = -1e30F;

/// c[u][n] += sum over k of a[u][k] * b[k][n], in the order of the level and KV type:
///   f32:  one fma chain over ascending k from +0, then added to c
///   bf16: per 32 k an even-k and an odd-k fma chain from zero, (even + odd) added to c
///         (avx512bf16: vdpbf16ps over ascending pairs, c as its operand)
struct Dots {
  const void* a = nullptr;  ///< [units][lda] f32 (bf16-valued for bf16), or Bf16 if Level::packed
  std::size_t lda = 0;
  std::size_t units = 0;             ///< 1..kTileUnits
  const std::byte* b = nullptr;      ///< f32 [k][ldb], bf16 [k / 2][ldb][2]
  const std::byte* ahead = nullptr;  ///< laid out as b, prefetched while b is read; may be b
  std::size_t ldb = 0;
  std::size_t columns = 0;  ///< multiple of 16
  std::size_t k = 0;        ///< multiple of 16
  float* c = nullptr;       ///< [units][ldc]
  std::size_t ldc = 0;
};
using DotsFn = void (*)(const Dots&);

/// Asks for the line `ahead` bytes behind p, into L2.
inline void prefetch(const void* p, std::ptrdiff_t ahead) {
  __builtin_prefetch(static_cast<const std::byte*>(p) + ahead, 0, 2);
}

enum class Weights { kF32, kRounded, kPacked };

/// Vision: keys whose maximum is taken together.
inline constexpr std::size_t kVisionKeyBlock = 256;

/// Vision: how far scores may exceed the running maximum before it moves. exp(8) is as good a
/// weight as 1, and a maximum that hardly ever moves after the first block needs no rescaling.
inline constexpr float kVisionSlack = 8;

/// One step of the online softmax for each unit: scores of `tokens` keys become weights
/// p = exp(s - m), rounded as `weights` says; where the largest score exceeds m by more than
/// `slack` it becomes m and l and o are rescaled; l takes the unrounded p, lane t % 16, ascending.
struct Softmax {
  float* s = nullptr;  ///< [units][lds]; kF32, kRounded: the weights replace the scores
  std::size_t lds = 0;
  std::size_t units = 0;
  std::size_t tokens = 0;                ///< multiple of 32
  const std::size_t* visible = nullptr;  ///< [units]: keys each unit may see, counted from `first`
  std::size_t first = 0;
  float slack = 0;
  float* m = nullptr;
  float* l = nullptr;  ///< [units][16]
  float* o = nullptr;  ///< [units][dim]
  std::size_t dim = 0;
  Weights weights = Weights::kF32;
  Bf16* packed = nullptr;  ///< [units][lds], for kPacked

  std::size_t seen(std::size_t u) const {
    const std::size_t v = visible[u] > first ? visible[u] - first : 0;
    return v < tokens ? v : tokens;
  }
};
using SoftmaxFn = void (*)(const Softmax&);

/// Most units of a `Bf16Step`.
inline constexpr std::size_t kWideUnits = 12;
/// Most tokens of a page or block.
inline constexpr std::size_t kBlockTokens = 256;

/// One page or block of bf16 keys and values for up to kWideUnits units: `Dots`, `Softmax` and
/// `Dots` of a packed level in one, in the same order of sums. Scores and weights of all units stay
/// in the nearest cache, and a run of 64 tokens is read for all units in turn.
struct Bf16Step {
  const std::byte* keys = nullptr;
  const std::byte* values = nullptr;  ///< parts of 64 d, `stride` tokens each
  std::size_t stride = 0;
  std::size_t tokens = 0;            ///< in use, a multiple of 32
  const std::byte* fetch = nullptr;  ///< memory to ask for meanwhile
  std::size_t fetch_lines = 0;
  std::size_t dim = 0;
  std::size_t units = 0;
  const Bf16* q = nullptr;               ///< [units][dim]
  const std::size_t* visible = nullptr;  ///< [units]
  std::size_t first = 0;
  float slack = 0;  ///< as of Softmax
  float* m = nullptr;
  float* l = nullptr;  ///< [units][16]
  float* o = nullptr;  ///< [units][dim]

  std::size_t seen(std::size_t u) const {
    const std::size_t v = visible[u] > first ? visible[u] - first : 0;
    return v < tokens ? v : tokens;
  }
};
using Bf16StepFn = void (*)(const Bf16Step&);

/// Bytes between the int8 queries of two units: tiles read 64 values at a time, zeros behind D.
constexpr std::size_t int8_query_stride(std::size_t dim) { return (dim + 63) / 64 * 64; }

/// Scale of a unit's int8 query and 128 times the sum of its values: what keys stored as
/// value + 128 add to a product.
struct Int8Query {
  float scale = 0;
  std::int32_t offset = 0;
};

/// How one thread fetches int8 pages for a single tile, chosen per machine (no bit depends on it):
/// line by line, so many streams of a page side by side.
struct PageStreams {
  std::size_t streams = 1;
  std::size_t ahead = 8192;  ///< bytes, for one stream; with more of them it is a page
  bool into_l2 = false;      ///< and no nearer
};
PageStreams page_streams();
void set_page_streams(PageStreams streams);

/// The lines to ask for during one step: those of `page` from the `first`th of `order` on, then
/// those of `next`, as many as a page has.
struct PageFetch {
  /// Behind the last offset it is repeated so often: lines are asked for some at a time.
  static constexpr std::size_t kSpare = 16;

  const std::byte* page = nullptr;
  const std::byte* next = nullptr;       ///< null: nothing is asked for
  const std::uint32_t* order = nullptr;  ///< [lines + kSpare] offsets in a page
  std::size_t lines = 0;
  std::size_t first = 0;
  bool into_l2 = false;  ///< as of PageStreams
};

/// One int8 page of 64 tokens for some units:
///   S_t = float(q . k_t) * (qs * ks_t);   if max S_t > m:  l, o *= exp(m - max), m = max
///   p_t = exp(S_t - m), 0 for t a unit may not see;   l[t % 16] += p_t, ascending
///   pm = max(1e-30, max of p_t * vs_t);   P_t = round_even(p_t * vs_t * (255 / pm)) as u8
///   o_d = fma(float(sum of P_t * V_td), pm / 255, o_d)
/// A NaN among the p_t * vs_t makes pm NaN, so maxima of these go by their bits, which are those of
/// values >= 0.
struct Int8Step {
  const std::byte* page = nullptr;
  PageFetch fetch;
  std::size_t dim = 0;
  std::size_t units = 0;
  const std::int8_t* q = nullptr;  ///< [units][int8_query_stride(dim)]
  const Int8Query* query = nullptr;
  const std::size_t* visible = nullptr;  ///< [units]: tokens each unit may see
  std::size_t first = 0;                 ///< position of the page's first token
  float* m = nullptr;
  float* l = nullptr;  ///< [units][16]
  float* o = nullptr;  ///< [units][dim]

  const std::byte* values() const { return page + kPageTokens * dim; }
  const float* key_scales() const {
    return reinterpret_cast<const float*>(page + 2 * kPageTokens * dim);
  }
  const float* value_scales() const { return key_scales() + kPageTokens; }
  /// Tokens of the page that unit u sees.
  std::size_t seen(std::size_t u) const {
    const std::size_t v = visible[u] > first ? visible[u] - first : 0;
    return v < kPageTokens ? v : kPageTokens;
  }
};
using Int8StepFn = void (*)(const Int8Step&);

struct PageRun;

/// Work on single vectors before and after the pages; the same bits at every level.
struct VectorOps {
  /// y = x turned as by `rope_text`; n even
  void (*turn)(const float* x, const float* cos, const float* sin, std::size_t n, float* y);
  /// y = x * factor
  void (*scale)(const float* x, float factor, std::size_t n, float* y);
  std::int32_t (*sum)(const std::int8_t* x, std::size_t n);
  /// into = into * r + from * r2; n a multiple of 16
  void (*merge)(float* into, const float* from, std::size_t n, float r, float r2);
  /// y = (x + 0) / divisor, rounded if `compute` is kBf16
  void (*divide)(const float* x, float divisor, std::size_t n, Compute compute, void* y);
  /// Four tokens of an int8 page from `token` on, a multiple of 4, D a multiple of 64: keys and
  /// values [4][D]; scales are not written. Null: vector by vector.
  void (*store_four)(std::size_t dim, std::byte* page, std::size_t token, const std::int8_t* keys,
                     const std::int8_t* values) = nullptr;
};
extern const VectorOps kPlainVectors;
extern const VectorOps kAvx512Vectors;

struct Level {
  DotsFn dots_f32 = nullptr;
  DotsFn dots_bf16 = nullptr;
  SoftmaxFn softmax = nullptr;
  bool packed = false;             ///< bf16 dots read a as Bf16 pairs
  Bf16StepFn bf16_step = nullptr;  ///< for many units; null: `dots_bf16` and `softmax`
  Int8StepFn int8_step = nullptr;
  /// All int8 pages of a run with more than kTileUnits units, D >= 32; null: `int8_step`.
  void (*int8_pages)(const PageRun&) = nullptr;
  const cpu::IntegerLevel* integer = nullptr;
  const VectorOps* vectors = &kPlainVectors;
};

void int8_step_scalar(const Int8Step& x);
void int8_step_avx2(const Int8Step& x);
void int8_step_avx512(const Int8Step& x);
void int8_pages_amx(const PageRun& run);

extern const Level kScalar;
extern const Level kAvx2;
extern const Level kAvx512;
extern const Level kAvx512Bf16;
extern const Level kAmx;
const Level& level_for(Isa isa);
// Shared by `kAvx512`, `kAvx512Bf16` and `kAmx`.
void dots_f32_avx512(const Dots& x);
void dots_bf16_avx512(const Dots& x);
void softmax_avx512(const Softmax& x);

/// Where things stand in a page of `tokens` tokens: keys [tokens / 64][D / n][64][n], n = 1, 2 or 4
/// for f32, bf16 and int8, then values (f32 [tokens][D]; otherwise parts of 64 d, each
/// [tokens / n][width][n]), then for int8 the scales of keys and of values, f32 [tokens] each.
struct PageLayout {
  Compute kv = Compute::kBf16;
  std::size_t dim = 0;  ///< D, a multiple of 16
  std::size_t tokens = kPageTokens;

  std::size_t elem() const { return operand_bytes(kv); }
  std::size_t values_offset() const { return tokens * dim * elem(); }
  std::size_t scales_offset() const { return 2 * values_offset(); }
  std::size_t bytes() const {
    return scales_offset() + (kv == Compute::kInt ? 2 * tokens * sizeof(float) : 0);
  }
  std::size_t part_width(std::size_t d0) const { return dim - d0 < kRun ? dim - d0 : kRun; }
};

/// Writes one token's key and value vector; k and v hold head_dim values, the rest up to D is zero.
void store_kv(const Level& level, const PageLayout& layout, std::byte* page, std::size_t token,
              const float* k, const float* v, std::size_t head_dim);
/// The same for rows of tokens from `token` on and every KV head, keys turned by the angles.
/// @param pages of each KV head
/// @pre token + rows.rows <= layout.tokens
void store_kv_rows(const Level& level, const PageLayout& layout, std::byte* const* pages,
                   std::size_t token, const KvRows& rows, std::size_t kv_heads,
                   std::size_t head_dim);

/// Softmax state of some units.
struct State {
  float* m = nullptr;  ///< [units]
  float* l = nullptr;  ///< [units][16]
  float* o = nullptr;  ///< [units][D]

  static std::size_t floats(std::size_t units, std::size_t dim) { return units * (17 + dim); }
  /// A state in `memory`, `floats(units, dim)` floats.
  static State in(float* memory, std::size_t units, std::size_t dim) {
    return {memory + units * (16 + dim), memory, memory + units * 16};
  }
};

/// The recurrence over pages [first_page, last_page) from a fresh state.
struct PageRun {
  PageLayout layout;
  const std::byte* const* pages = nullptr;
  std::size_t first_page = 0;
  std::size_t last_page = 0;
  std::size_t known_pages = 0;  ///< entries of `pages`; those after last_page are only prefetched
  std::size_t units = 0;
  const std::byte* q = nullptr;          ///< [units][D] f32 or Bf16 as the level reads it; int8:
                                         ///< [units][int8_query_stride(D)]
  const Int8Query* query = nullptr;      ///< [units] for int8
  const std::size_t* visible = nullptr;  ///< [units], ascending: tokens each unit may see
  State state;
  std::byte* scratch = nullptr;  ///< scratch_bytes(layout), 64-byte aligned
  float slack = 0;               ///< as of Softmax; int8: 0
};
std::size_t scratch_bytes(const PageLayout& layout);
/// Asks for a whole page, as `run_pages` asks for those that follow its first.
void fetch_page(const PageLayout& layout, const std::byte* page);
void run_pages(const Level& level, const PageRun& run);

/// q / sqrt(head_dim), as q * (1 / sqrt(head_dim)) in f32, rounded for bf16, padded to D with
/// zeros, in the form that the level reads.
void prepare_query(const Level& level, const PageLayout& layout, const float* q,
                   std::size_t head_dim, std::byte* out);

/// The same for int8 pages: absmax / 127 is the scale of the whole vector.
/// @param scaled [head_dim] scratch, may be q
void prepare_int8_query(const Level& level, const PageLayout& layout, const float* q,
                        std::size_t head_dim, float* scaled, std::int8_t* out, Int8Query& query);

/// Adds a later state of one unit to `into`: both are rescaled to the larger maximum,
/// l = l r + l' r', o = o r + o' r'.
void merge_state(const Level& level, const State& into, const State& from, std::size_t unit,
                 std::size_t dim);

/// out = o / (l folded by halves 8, 4, 2, 1) of one unit.
void finish_unit(const Level& level, const State& state, std::size_t unit, std::size_t dim,
                 std::size_t head_dim, Compute compute, void* out);

}  // namespace moesaic::attention_detail
