#include "common/kernels/cpu/linear_level.hpp"

#include <emmintrin.h>

#include <algorithm>
#include <cassert>
#include <cstring>

namespace moesaic::cpu {
namespace {

constexpr std::size_t kLine = 64;
/// How far ahead of the weights a tile for few rows prefetches.
constexpr std::size_t kPrefetchBytes = 4096;

/// Up to this many groups tiles prefetch.
constexpr std::size_t kFetchingGroups = 8;

/// Denormals count as zero, as inputs and as results, while this lives.
class FlushDenormals {
 public:
  explicit FlushDenormals(bool on) : saved_(_mm_getcsr()) {
    if (on) _mm_setcsr(saved_ | kFlushToZero | kDenormalsAreZero);
  }
  ~FlushDenormals() { _mm_setcsr(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  static constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
  unsigned saved_;
};

/// Groups [first, last) of a job, few enough for the sums to stay in L1.
struct RowBlock {
  std::size_t first_group, last_group;
};

/// Sums of one panel for a row block: c[rows][32].
void sum_panel(const PanelJob& job, const RowBlock& block, std::size_t panel, float* c) {
  const auto& layout = *job.layout;
  const auto& tiles = *job.tiles;
  const std::size_t groups = block.last_group - block.first_group;
  const std::size_t first_row = layout.first(block.first_group);
  const std::size_t rows = layout.first(block.last_group) - first_row;
  std::memset(c, 0, rows * 32 * sizeof(float));

  const std::size_t k_bytes = job.w->format == WeightFormat::kBf16 ? 64 : 128;
  // Steps over padding add +0 to a chain, which no sum can tell: totals start at +0.
  const std::size_t cols = (job.w->cols + 31) / 32 * 32;
  const std::byte* w = job.w->data + panel * job.w->panel_bytes();
  // One group streams the panel. More of them share the block in L1 and each fetches its share of
  // the next: tile by tile along the way, or, where shares are small, at once.
  const std::size_t lines = groups == 1 ? 2 : groups <= kFetchingGroups ? 1 : 0;
  for (std::size_t k = 0; k < cols; k += kTileCols) {
    const std::size_t n = std::min(kTileCols, cols - k);
    const std::size_t block_bytes = n * k_bytes;
    const std::size_t ahead = groups > 1 ? block_bytes : kPrefetchBytes;
    const std::size_t share = (block_bytes / groups + kLine - 1) / kLine * kLine;
    for (std::size_t g = 0; g < groups; ++g) {
      const std::size_t group = block.first_group + g;
      const std::size_t row = layout.first(group);
      const std::size_t group_rows = layout.first(group + 1) - row;
      const std::byte* x = job.x + layout.offset(group, k);
      const std::byte* prefetch = w + ahead + g * share;
      if (lines == 0)
        for (std::size_t i = 0; i < share; i += kLine) _mm_prefetch(prefetch + i, _MM_HINT_T1);
      tiles.tile(lines, group_rows)(w, x, n, c + (row - first_row) * 32, prefetch);
    }
    w += block_bytes;
  }
}

}  // namespace

void store_plain(const SumRows& x, bool add, float* y, std::size_t ldy) {
  for (std::size_t r = 0; r < x.rows; ++r, y += ldy) {
    const float* c = x.c + r * x.ldc;
    for (std::size_t i = 0; i < x.count; ++i) {
      const float sum = x.bias != nullptr ? c[i] + x.bias[i] : c[i];
      y[i] = add ? sum + y[i] : sum;
    }
  }
}

void activate_by(const Elementwise& rows, const SumRows& x, Activation activation, float* y_f32,
                 Bf16* y_bf16, std::size_t ldy) {
  const auto run = activation == Activation::kQuickGelu ? rows.quick_gelu : rows.gelu_erf;
  for (std::size_t r = 0; r < x.rows; ++r) {
    alignas(64) float sums[32];
    store_plain({x.c + r * x.ldc, x.ldc, 1, x.count, x.bias}, false, sums, 32);
    run(sums, x.count, y_f32 != nullptr ? y_f32 + r * ldy : nullptr,
        y_bf16 != nullptr ? y_bf16 + r * ldy : nullptr);
  }
}

const LinearLevel& linear_level(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return linear_scalar();
    case Isa::kAvx2:
      return linear_avx2();
    case Isa::kAvx512:
      return linear_avx512();
    case Isa::kAvx512Bf16:
      return linear_avx512bf16();
    case Isa::kAmx:
      return linear_amx();
  }
  return linear_scalar();
}

RowLayout LinearLevel::layout(const PackedMatrix& w, Sum sum, std::size_t rows) const {
  if (sum == Sum::kInteger) {
    auto layout = RowLayout::integer(rows, w.padded_cols(), w.a8_block());
    layout.with_sums = integer->reads_sums == nullptr || integer->reads_sums(w.format, rows);
    return layout;
  }
  if (sum == Sum::kBf16 && run_tiles != nullptr && rows >= least_tile_rows)
    return RowLayout::bf16_tiles(rows, w.padded_cols());
  const auto& set = *tiles(sum);
  return {rows, set.group_rows, w.padded_cols(), set.pairs};
}

Sum sum_of(const PackedMatrix& w, Compute compute) {
  if (is_integer(w.format)) return Sum::kInteger;
  if (compute == Compute::kBf16) {
    assert(w.format == WeightFormat::kBf16);
    return Sum::kBf16;
  }
  return w.format == WeightFormat::kBf16 ? Sum::kF32Widened : Sum::kF32;
}

namespace {

void run_integer(const PanelJob& job) {
  const std::size_t groups = job.last_group - job.first_group;
  const std::size_t most = kIntegerBlockRows / RowLayout::kTileRows;
  for (std::size_t g = 0; g < groups; g += most) {
    const std::size_t first = job.first_group + g;
    job.level->integer->run({.w = job.w,
                             .layout = job.layout,
                             .x = job.x,
                             .first_row = job.layout->first(first),
                             .last_row = job.layout->first(std::min(first + most, job.last_group)),
                             .first_panel = job.first_panel,
                             .last_panel = job.last_panel,
                             .sink = job.sink});
  }
}

void run_vectors(const PanelJob& job) {
  alignas(64) float c[kBlockRows * 32];
  const std::size_t groups = job.last_group - job.first_group;
  if (groups == 0) return;
  const std::size_t rows = job.layout->first(job.last_group) - job.layout->first(job.first_group);
  const std::size_t blocks = most_row_blocks(rows);
  for (std::size_t b = 0; b < blocks; ++b) {
    const RowBlock block{job.first_group + b * groups / blocks,
                         job.first_group + (b + 1) * groups / blocks};
    const std::size_t first_row = job.layout->first(block.first_group);
    const std::size_t block_rows = job.layout->first(block.last_group) - first_row;
    assert(block_rows <= kBlockRows);
    for (std::size_t p = job.first_panel; p < job.last_panel; ++p) {
      {
        const FlushDenormals flush(job.tiles->flush_denormals);
        sum_panel(job, block, p, c);
      }
      job.sink->take(p, first_row, block_rows, c, 32);
    }
  }
}

}  // namespace

void run_panels(const PanelJob& job) {
  if (job.tiles == nullptr)
    run_integer(job);
  else if (job.layout->tiles)
    job.level->run_tiles(job);
  else
    run_vectors(job);
  // Streamed stores are in no order with others.
  if (job.sink->epilogue().stream) _mm_sfence();
}

}  // namespace moesaic::cpu
