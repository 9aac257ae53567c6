#include <immintrin.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstring>
#include <vector>

#include "common/kernels/cpu/attention_impl.hpp"

namespace moesaic::attention_detail {
namespace {

constexpr std::size_t kBlock = 32;  // tokens are processed in whole blocks of the bf16 order

constexpr std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

/// Denormals are zero inside the bf16 recurrence, as TDPBF16PS and vdpbf16ps have it.
class FlushDenormals {
 public:
  explicit FlushDenormals(bool on) : saved_(_mm_getcsr()) {
    if (on) _mm_setcsr(saved_ | 0x8040U);  // FTZ, DAZ
  }
  ~FlushDenormals() { _mm_setcsr(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned saved_;
};

/// Copies the values of tokens 0 .. valid - 1 and zeros up to the end of their block: 0 * NaN of a
/// token that was never written must not reach a sum.
void copy_clean(const PageLayout& layout, const std::byte* values, std::size_t valid,
                std::byte* out) {
  const std::size_t end = round_up(valid, kBlock);
  if (layout.kv == Compute::kF32) {
    const std::size_t row = layout.dim * sizeof(float);
    std::memcpy(out, values, valid * row);
    std::memset(out + valid * row, 0, (end - valid) * row);
    return;
  }
  for (std::size_t d0 = 0; d0 < layout.dim; d0 += kRun) {
    const std::size_t width = layout.part_width(d0), pair = width * 2 * sizeof(Bf16);
    const std::size_t part = d0 * layout.tokens * sizeof(Bf16), pairs = (valid + 1) / 2;
    std::memcpy(out + part, values + part, pairs * pair);
    std::memset(out + part + pairs * pair, 0, (end / 2 - pairs) * pair);
    if (valid % 2 != 0) {
      auto* last = reinterpret_cast<Bf16*>(out + part + (pairs - 1) * pair);
      for (std::size_t d = 0; d < width; ++d) last[2 * d + 1] = 0;
    }
  }
}

/// The values of a page in which `written` tokens or more stand, cleaned into `clean` if need be.
const std::byte* clean_values(const PageLayout& layout, const std::byte* page, std::size_t written,
                              std::byte* clean) {
  const std::byte* values = page + layout.values_offset();
  if (written >= layout.tokens || written % kBlock == 0) return values;
  copy_clean(layout, values, written, clean);
  return clean;
}

/// One page for one tile of units.
struct Tile {
  const Level& level;
  const PageRun& run;
  std::size_t unit = 0;
  std::size_t units = 0;

  DotsFn dots() const { return run.layout.kv == Compute::kF32 ? level.dots_f32 : level.dots_bf16; }
  bool packed() const { return level.packed && run.layout.kv == Compute::kBf16; }

  /// @param next a page to prefetch meanwhile, or `page`
  void step(const std::byte* page, const std::byte* values, const std::byte* next,
            std::size_t first) const {
    const PageLayout& layout = run.layout;
    const std::size_t seen = run.visible[unit + units - 1] - first;
    const std::size_t tokens = round_up(std::min(seen, layout.tokens), kBlock);
    auto* scores = reinterpret_cast<float*>(run.scratch);
    auto* weights = reinterpret_cast<Bf16*>(scores + kTileUnits * layout.tokens);
    std::memset(scores, 0, units * layout.tokens * sizeof(float));

    Dots d;
    d.units = units;
    d.a = run.q + unit * layout.dim * (packed() ? sizeof(Bf16) : sizeof(float));
    d.lda = layout.dim;
    d.ldb = kRun;
    d.k = layout.dim;
    d.ldc = layout.tokens;
    for (std::size_t t = 0; t < tokens; t += kRun) {
      d.b = page + t * layout.dim * layout.elem();
      d.ahead = next + (d.b - page);
      d.columns = std::min(kRun, tokens - t);
      d.c = scores + t;
      dots()(d);
    }

    Softmax s;
    s.s = scores;
    s.lds = layout.tokens;
    s.units = units;
    s.tokens = tokens;
    s.visible = run.visible + unit;
    s.first = first;
    s.slack = run.slack;
    s.m = run.state.m + unit;
    s.l = run.state.l + unit * 16;
    s.o = run.state.o + unit * layout.dim;
    s.dim = layout.dim;
    s.weights = packed()                      ? Weights::kPacked
                : layout.kv == Compute::kBf16 ? Weights::kRounded
                                              : Weights::kF32;
    s.packed = weights;
    level.softmax(s);

    d.a = packed() ? static_cast<const void*>(weights) : scores;
    d.lda = layout.tokens;
    d.k = tokens;
    d.ldc = layout.dim;
    const std::size_t width = layout.kv == Compute::kF32 ? layout.dim : kRun;
    for (std::size_t d0 = 0; d0 < layout.dim; d0 += width) {
      const std::size_t offset = d0 * layout.tokens * layout.elem();
      d.b = values + offset;
      d.ahead = next + layout.values_offset() + offset;
      d.ldb = d.columns = std::min(width, layout.dim - d0);
      d.c = s.o + d0;
      dots()(d);
    }
  }
};

/// The pages of many units, twice as many at a time.
void run_wide_pages(const Level& level, const PageRun& run, std::byte* clean) {
  const PageLayout& layout = run.layout;
  const std::size_t lines = layout.bytes() / 64;
  const std::size_t tiles = (run.units + kWideUnits - 1) / kWideUnits;
  for (std::size_t p = run.first_page; p < run.last_page; ++p) {
    Bf16Step step;
    step.first = p * layout.tokens;
    const std::size_t written = run.visible[run.units - 1] - step.first;
    step.keys = run.pages[p];
    step.values = clean_values(layout, run.pages[p], written, clean);
    step.stride = layout.tokens;
    step.dim = layout.dim;
    for (std::size_t u = 0, tile = 0; u < run.units; u += kWideUnits, ++tile) {
      step.units = std::min(kWideUnits, run.units - u);
      const std::size_t visible = run.visible[u + step.units - 1];
      if (visible <= step.first) continue;
      step.tokens = round_up(std::min(visible - step.first, layout.tokens), kBlock);
      if (p + 1 < run.known_pages) {
        const std::size_t line = lines * tile / tiles;
        step.fetch = run.pages[p + 1] + line * 64;
        step.fetch_lines = lines * (tile + 1) / tiles - line;
      }
      step.q = reinterpret_cast<const Bf16*>(run.q) + u * layout.dim;
      step.visible = run.visible + u;
      step.slack = run.slack;
      step.m = run.state.m + u;
      step.l = run.state.l + u * 16;
      step.o = run.state.o + u * layout.dim;
      level.bf16_step(step);
    }
  }
}

std::atomic<std::size_t> fetch_streams{PageStreams{}.streams};
std::atomic<std::size_t> fetch_ahead{PageStreams{}.ahead};
std::atomic<bool> fetch_into_l2{PageStreams{}.into_l2};

/// Offsets of the lines of a page in the order in which `streams` streams take turns.
const std::uint32_t* fetch_order(std::size_t lines, std::size_t streams) {
  thread_local std::vector<std::uint32_t> order;
  thread_local std::size_t made_for = 0;
  if (order.size() == lines + PageFetch::kSpare && made_for == streams) return order.data();
  order.clear();
  const std::size_t each = lines / streams;
  for (std::size_t i = 0; i < each; ++i)
    for (std::size_t s = 0; s < streams; ++s)
      order.push_back(static_cast<std::uint32_t>(64 * (s * each + i)));
  while (order.size() < lines) order.push_back(static_cast<std::uint32_t>(64 * order.size()));
  order.resize(lines + PageFetch::kSpare, order.back());
  made_for = streams;
  return order.data();
}

/// A single tile streams the pages; several tiles share a page in the nearest cache, and the last
/// one fetches the next.
void run_int8_pages(const Level& level, const PageRun& run) {
  const std::size_t dim = run.layout.dim;
  const bool alone = run.units <= kTileUnits;
  const PageStreams streams = alone ? page_streams() : PageStreams{1, run.layout.bytes(), false};
  PageFetch fetch;
  fetch.lines = run.layout.bytes() / 64;
  fetch.order = fetch_order(fetch.lines, streams.streams);
  fetch.into_l2 = streams.into_l2;
  fetch.first = streams.streams > 1 ? fetch.lines : std::min(streams.ahead / 64, fetch.lines);
  for (std::size_t p = run.first_page; p < run.last_page; ++p) {
    const std::size_t first = p * kPageTokens;
    for (std::size_t u = 0; u < run.units; u += kTileUnits) {
      const std::size_t units = std::min(kTileUnits, run.units - u);
      if (run.visible[u + units - 1] <= first) continue;
      Int8Step step;
      step.page = run.pages[p];
      step.dim = dim;
      if (u + units == run.units) {
        step.fetch = fetch;
        step.fetch.page = run.pages[p];
        step.fetch.next = run.pages[p + 1 < run.known_pages ? p + 1 : p];
      }
      step.units = units;
      step.q = reinterpret_cast<const std::int8_t*>(run.q) + u * int8_query_stride(dim);
      step.query = run.query + u;
      step.visible = run.visible + u;
      step.first = first;
      step.m = run.state.m + u;
      step.l = run.state.l + u * 16;
      step.o = run.state.o + u * dim;
      level.int8_step(step);
    }
  }
}

}  // namespace

PageStreams page_streams() {
  return {fetch_streams.load(std::memory_order_relaxed),
          fetch_ahead.load(std::memory_order_relaxed),
          fetch_into_l2.load(std::memory_order_relaxed)};
}

void set_page_streams(PageStreams streams) {
  assert(streams.streams > 0);
  fetch_streams.store(streams.streams, std::memory_order_relaxed);
  fetch_ahead.store(streams.ahead, std::memory_order_relaxed);
  fetch_into_l2.store(streams.into_l2, std::memory_order_relaxed);
}

void fetch_page(const PageLayout& layout, const std::byte* page) {
  const std::size_t lines = layout.bytes() / 64;
  const std::uint32_t* order = fetch_order(lines, page_streams().streams);
  for (std::size_t i = 0; i < lines; ++i) __builtin_prefetch(page + order[i], 0, 3);
}

std::size_t scratch_bytes(const PageLayout& layout) {
  const std::size_t scores = kTileUnits * layout.tokens * sizeof(float);
  return scores + scores / 2 + layout.values_offset();
}

void run_pages(const Level& level, const PageRun& run) {
  const PageLayout& layout = run.layout;
  std::fill_n(run.state.m, run.units, kMasked);
  std::fill_n(run.state.l, run.units * 16, 0.0F);
  std::fill_n(run.state.o, run.units * layout.dim, 0.0F);
  if (layout.kv == Compute::kInt) {
    const bool many = level.int8_pages != nullptr && run.units > kTileUnits && layout.dim >= 32;
    return many ? level.int8_pages(run) : run_int8_pages(level, run);
  }
  std::byte* const clean = run.scratch + scratch_bytes(layout) - layout.values_offset();
  const FlushDenormals flush(layout.kv == Compute::kBf16);
  if (layout.kv == Compute::kBf16 && level.bf16_step != nullptr && run.units > kTileUnits)
    return run_wide_pages(level, run, clean);
  for (std::size_t p = run.first_page; p < run.last_page; ++p) {
    const std::size_t first = p * layout.tokens;
    const std::size_t written = run.visible[run.units - 1] - first;
    const std::byte* values = clean_values(layout, run.pages[p], written, clean);
    for (std::size_t u = 0; u < run.units; u += kTileUnits) {
      const std::size_t units = std::min(kTileUnits, run.units - u);
      if (run.visible[u + units - 1] <= first) continue;
      const bool fetch = u + units == run.units && p + 1 < run.known_pages;
      Tile{level, run, u, units}.step(run.pages[p], values, run.pages[fetch ? p + 1 : p], first);
    }
  }
}

const Level& level_for(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return kScalar;
    case Isa::kAvx2:
      return kAvx2;
    case Isa::kAvx512Bf16:
      return kAvx512Bf16;
    case Isa::kAmx:
      return kAmx;
    case Isa::kAvx512:
      return kAvx512;
  }
  return kScalar;
}

}  // namespace moesaic::attention_detail
