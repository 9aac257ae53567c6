#include <immintrin.h>

#include <algorithm>
#include <cassert>
#include <cstddef>

#include "common/kernels/cpu/amx.hpp"
#include "common/kernels/cpu/linear_level.hpp"

namespace moesaic::cpu {
namespace {

constexpr std::size_t kPanelStep = 2048;  ///< bytes of 32 k of a panel: two B tiles
constexpr std::size_t kUnitRows = 2 * RowLayout::kTileRows;
/// Weights that stay in L2 while all rows of a job pass over them.
constexpr std::size_t kResidentBytes = std::size_t{1} << 20;
/// Finished rows handed on at a time in the shadow of the next unit's products.
constexpr std::size_t kDrainRows = 2;

/// Memory asked for into L2, evenly over the steps of a unit.
struct Stream {
  const std::byte* at = nullptr;
  std::size_t lines = 0;
};

/// Sums of a unit that still have to be handed on.
struct Pending {
  const float* c = nullptr;  ///< [rows][32]
  std::size_t panel = 0, first_row = 0, rows = 0;
};

/// One unit: 16 * kRowTiles rows x one panel, all of K. The sums stay in tiles: 0, 1 (2, 3) are the
/// panel's halves for the first (second) 16 rows. Rows and weights come from L2, which keeps L1 for
/// what is read twice.
/// @param x2 the second 16 rows
/// @param c  [16 * kRowTiles][32]
template <int kRowTiles>
MOESAIC_AMX void run_unit(const std::byte* w, const std::byte* x, const std::byte* x2,
                          std::size_t steps, float* c, const Stream (&streams)[2],
                          const Pending& last, const PanelSink& sink) {
  MOESAIC_TILE_ZERO(0);
  MOESAIC_TILE_ZERO(1);
  if constexpr (kRowTiles == 2) {
    MOESAIC_TILE_ZERO(2);
    MOESAIC_TILE_ZERO(3);
  }
  std::size_t fetched[2] = {0, 0}, drained = 0;
  for (std::size_t step = 0; step < steps; ++step) {
    MOESAIC_TILE_STREAM(6, w, 64);
    MOESAIC_TILE_STREAM(4, x, 64);
    MOESAIC_TILE_STREAM(7, w + 1024, 64);
    MOESAIC_TILE_DOT(tdpbf16ps, 0, 4, 6);
    if constexpr (kRowTiles == 2) MOESAIC_TILE_STREAM(5, x2, 64);
    MOESAIC_TILE_DOT(tdpbf16ps, 1, 4, 7);
    if constexpr (kRowTiles == 2) {
      MOESAIC_TILE_DOT(tdpbf16ps, 2, 5, 6);
      MOESAIC_TILE_DOT(tdpbf16ps, 3, 5, 7);
    }
    w += kPanelStep;
    x += RowLayout::kTileBytes;
    x2 += RowLayout::kTileBytes;
    for (int s = 0; s < 2; ++s)
      for (const std::size_t end = streams[s].lines * (step + 1) / steps; fetched[s] < end;
           ++fetched[s])
        _mm_prefetch(streams[s].at + fetched[s] * 64, _MM_HINT_T1);
    const std::size_t due = step + 1 == steps ? last.rows : last.rows * (step + 1) / steps;
    if (due >= drained + kDrainRows || (due > drained && due == last.rows)) {
      sink.take(last.panel, last.first_row + drained, due - drained, last.c + drained * 32, 32);
      drained = due;
    }
  }
  constexpr std::size_t kRowBytes = 32 * sizeof(float);
  MOESAIC_TILE_STORE(0, c, kRowBytes);
  MOESAIC_TILE_STORE(1, c + 16, kRowBytes);
  if constexpr (kRowTiles == 2) {
    MOESAIC_TILE_STORE(2, c + 16 * 32, kRowBytes);
    MOESAIC_TILE_STORE(3, c + 16 * 32 + 16, kRowBytes);
  }
}

/// Blocks of panels that stay in L2; all rows pass over a block, 32 at a time.
MOESAIC_AMX void run_tiles(const PanelJob& job) {
  const RowLayout& layout = *job.layout;
  const std::size_t first_row = layout.first(job.first_group);
  const std::size_t last_row = layout.first(job.last_group);
  if (first_row == last_row) return;
  const std::size_t steps = (job.w->cols + RowLayout::kTileK - 1) / RowLayout::kTileK;
  const std::size_t panel_bytes = job.w->panel_bytes();
  const std::size_t resident = std::max<std::size_t>(1, kResidentBytes / panel_bytes);
  const WholeTiles tiles;
  alignas(64) float sums[2][kUnitRows * 32];
  Pending last;
  int turn = 0;
  for (std::size_t first = job.first_panel; first < job.last_panel; first += resident) {
    const std::size_t panels = std::min(resident, job.last_panel - first);
    for (std::size_t row = first_row; row < last_row; row += kUnitRows) {
      const std::size_t rows = std::min(kUnitRows, last_row - row);
      const std::byte* x = job.x + layout.tile_offset(row, 0);
      const std::byte* x2 = rows > 16 ? job.x + layout.tile_offset(row + 16, 0) : x;
      const std::size_t next_rows = std::min(kUnitRows, last_row - std::min(last_row, row + rows));
      const std::size_t next_lines = (next_rows + 15) / 16 * steps * 16;
      for (std::size_t p = 0; p < panels; ++p) {
        const std::byte* w = job.w->data + (first + p) * panel_bytes;
        // The rows that come next, and the panel that the first rows meet next.
        const std::size_t line = next_lines * p / panels;
        const bool fetch_weights = row == first_row && first + p + 1 < job.w->panels();
        const Stream streams[2] = {
            {job.x + layout.tile_offset(row, 0) +
                 (rows + 15) / 16 * (layout.padded_cols / RowLayout::kTileK) *
                     RowLayout::kTileBytes +
                 line * 64,
             next_lines * (p + 1) / panels - line},
            {w + panel_bytes, fetch_weights ? panel_bytes / 64 : 0}};
        const auto run = rows > 16 ? run_unit<2> : run_unit<1>;
        run(w, x, x2, steps, sums[turn], streams, last, *job.sink);
        last = {sums[turn], first + p, row, rows};
        turn ^= 1;
      }
    }
  }
  job.sink->take(last.panel, last.first_row, last.rows, last.c, 32);
}

}  // namespace

const LinearLevel& linear_amx() {
  static const LinearLevel level = [] {
    LinearLevel l = linear_avx512();
    l.integer = &kIntegerAmx;
    l.run_tiles = run_tiles;
    l.least_tile_rows = 5;
    return l;
  }();
  return level;
}

}  // namespace moesaic::cpu
