#include <immintrin.h>

#include <algorithm>
#include <cstddef>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/cpu/amx.hpp"
#include "common/kernels/cpu/finished_panel.hpp"
#include "common/kernels/cpu/linear_level.hpp"

namespace moesaic::cpu {
namespace {

constexpr std::size_t kPanelStep = 2048;  ///< bytes of 32 k of a panel: two B tiles
constexpr std::size_t kUnitRows = 2 * RowLayout::kTileRows;
/// Weights that stay in L2 while all rows of a job pass over them.
constexpr std::size_t kResidentBytes = std::size_t{1} << 20;
/// A K beyond one and a half times so many steps goes in parts of about as many; so many rows pass
/// over a block then.
constexpr std::size_t kPartSteps = 40, kPartRows = 512;
/// Rows finished at a time in the shadow of the next unit's products.
constexpr std::size_t kDrainRows = 2;

/// Memory asked for into L2, evenly over the steps of a unit.
struct Stream {
  const std::byte* at = nullptr;
  std::size_t lines = 0;
};
constexpr int kStreams = 3;

/// Sums of a unit that still have to be finished.
struct Pending {
  const float* c = nullptr;  ///< [rows][32]
  std::size_t panel = 0, first_row = 0, rows = 0;
  const Epilogue* epilogue = nullptr;
  std::size_t next = 32;  ///< as of finish_row
};

MOESAIC_AVX512_INLINE void finish(const Pending& last, std::size_t from, std::size_t to,
                                  const PanelSink& sink) {
  const float* c = last.c + from * 32;
  if (last.epilogue->kind == Epilogue::Kind::kTake)
    return sink.take(last.panel, last.first_row + from, to - from, c, 32);
  for (; from < to; ++from, c += 32)
    finish_row<false>(*last.epilogue, last.panel, last.first_row + from, _mm512_load_ps(c),
                      _mm512_load_ps(c + 16), nullptr, last.next);
}

/// What becomes of the sums of a job, but for the kind that only integer products know.
class Epilogues {
 public:
  /// @pre job has a panel
  explicit Epilogues(const PanelJob& job)
      : whole_(epilogue_of(*job.w, *job.sink, job.first_panel)),
        last_(epilogue_of(*job.w, *job.sink, job.last_panel - 1)),
        last_panel_(job.last_panel - 1) {
    for (Epilogue* e : {&whole_, &last_})
      if (e->kind == Epilogue::Kind::kSiluMul) *e = {};
  }
  /// The last panel may be a part of one.
  const Epilogue* of(std::size_t panel) const { return panel == last_panel_ ? &last_ : &whole_; }

 private:
  Epilogue whole_, last_;
  std::size_t last_panel_;
};

/// One unit: 16 * kRowTiles rows x one panel, `steps` times 32 k. The sums stay in tiles: 0, 1 (2,
/// 3) are the panel's halves for the first (second) 16 rows. Rows and weights come from L2, which
/// keeps L1 for what is read twice.
/// @param x2     the second 16 rows
/// @param before [16 * kRowTiles][32] sums so far, or null; may be c
/// @param c      [16 * kRowTiles][32]
template <int kRowTiles>
MOESAIC_AMX void run_unit(const std::byte* w, const std::byte* x, const std::byte* x2,
                          std::size_t steps, const float* before, float* c,
                          const Stream (&streams)[kStreams], const Pending& last,
                          const PanelSink& sink) {
  constexpr std::size_t kRowBytes = 32 * sizeof(float);
  if (before == nullptr) {
    MOESAIC_TILE_ZERO(0);
    MOESAIC_TILE_ZERO(1);
    if constexpr (kRowTiles == 2) {
      MOESAIC_TILE_ZERO(2);
      MOESAIC_TILE_ZERO(3);
    }
  } else {
    MOESAIC_TILE_LOAD(0, before, kRowBytes);
    MOESAIC_TILE_LOAD(1, before + 16, kRowBytes);
    if constexpr (kRowTiles == 2) {
      MOESAIC_TILE_LOAD(2, before + 16 * 32, kRowBytes);
      MOESAIC_TILE_LOAD(3, before + 16 * 32 + 16, kRowBytes);
    }
  }
  std::size_t fetched[kStreams] = {}, drained = 0;
  for (std::size_t step = 0; step < steps; ++step) {
    MOESAIC_TILE_STREAM(6, w, 64);
    MOESAIC_TILE_GAP();
    MOESAIC_TILE_STREAM(4, x, 64);
    MOESAIC_TILE_GAP();
    MOESAIC_TILE_STREAM(7, w + 1024, 64);
    MOESAIC_TILE_GAP();
    MOESAIC_TILE_DOT(tdpbf16ps, 0, 4, 6);
    MOESAIC_TILE_GAP();
    if constexpr (kRowTiles == 2) {
      MOESAIC_TILE_STREAM(5, x2, 64);
      MOESAIC_TILE_GAP();
    }
    MOESAIC_TILE_DOT(tdpbf16ps, 1, 4, 7);
    if constexpr (kRowTiles == 2) {
      MOESAIC_TILE_GAP();
      MOESAIC_TILE_DOT(tdpbf16ps, 2, 5, 6);
      MOESAIC_TILE_GAP();
      MOESAIC_TILE_DOT(tdpbf16ps, 3, 5, 7);
    }
    w += kPanelStep;
    x += RowLayout::kTileBytes;
    x2 += RowLayout::kTileBytes;
    for (int s = 0; s < kStreams; ++s)
      for (const std::size_t end = streams[s].lines * (step + 1) / steps; fetched[s] < end;
           ++fetched[s])
        _mm_prefetch(streams[s].at + fetched[s] * 64, _MM_HINT_T1);
    const std::size_t due = last.rows * (step + 1) / steps;
    if (due >= drained + kDrainRows || (due > drained && due == last.rows)) {
      finish(last, drained, due, sink);
      drained = due;
    }
  }
  MOESAIC_TILE_STORE(0, c, kRowBytes);
  MOESAIC_TILE_STORE(1, c + 16, kRowBytes);
  if constexpr (kRowTiles == 2) {
    MOESAIC_TILE_STORE(2, c + 16 * 32, kRowBytes);
    MOESAIC_TILE_STORE(3, c + 16 * 32 + 16, kRowBytes);
  }
}

/// Blocks of panels that stay in L2 while rows pass over them, 32 at a time. A long K goes in
/// parts, so that a block has enough panels for each row that passes; its sums then wait beside it.
MOESAIC_AMX void run_tiles(const PanelJob& job) {
  const RowLayout& layout = *job.layout;
  const std::size_t first_row = layout.first(job.first_group);
  const std::size_t last_row = layout.first(job.last_group);
  if (first_row == last_row || job.first_panel == job.last_panel) return;
  const std::size_t all_steps = (job.w->cols + RowLayout::kTileK - 1) / RowLayout::kTileK;
  const std::size_t parts = std::max<std::size_t>(1, (all_steps + kPartSteps / 2) / kPartSteps);
  const std::size_t part_bytes = (all_steps + parts - 1) / parts * kPanelStep;
  const std::size_t panel_bytes = job.w->panel_bytes();
  const std::size_t resident = std::max<std::size_t>(1, kResidentBytes / part_bytes);
  const std::size_t row_block = parts == 1 ? last_row - first_row : kPartRows;
  thread_local AlignedBuffer waiting;
  if (parts > 1) waiting.reserve(resident * kPartRows * 32 * sizeof(float));
  auto* const partial = waiting.as<float>().data();
  const WholeTiles tiles;
  const Epilogues epilogues(job);
  alignas(64) float sums[2][kUnitRows * 32];
  Pending last;
  int turn = 0;
  for (std::size_t first = job.first_panel; first < job.last_panel; first += resident) {
    const std::size_t panels = std::min(resident, job.last_panel - first);
    for (std::size_t block = first_row; block < last_row; block += row_block) {
      const std::size_t block_end = std::min(last_row, block + row_block);
      for (std::size_t part = 0; part < parts; ++part) {
        const std::size_t step = part * all_steps / parts;
        const std::size_t steps = (part + 1) * all_steps / parts - step;
        for (std::size_t row = block; row < block_end; row += kUnitRows) {
          const std::size_t rows = std::min(kUnitRows, block_end - row), next = row + kUnitRows;
          const auto tile_at = [&](std::size_t r) {
            return job.x + layout.tile_offset(r, step * RowLayout::kTileK);
          };
          for (std::size_t p = 0; p < panels; ++p) {
            const std::byte* w = job.w->data + (first + p) * panel_bytes + step * kPanelStep;
            // This panel's share of the rows that come next, and the panel that the first rows meet
            // next.
            const std::size_t lines = steps * RowLayout::kTileBytes / 64;
            const std::size_t line = lines * p / panels;
            const std::size_t share = lines * (p + 1) / panels - line;
            Stream streams[kStreams];
            if (next < block_end) streams[0] = {tile_at(next) + line * 64, share};
            if (next + 16 < block_end) streams[1] = {tile_at(next + 16) + line * 64, share};
            if (row == block && first + p + 1 < job.w->panels())
              streams[2] = {w + panel_bytes, steps * kPanelStep / 64};
            float* const wait = partial + (p * kPartRows + (row - block)) * 32;
            const bool done = part + 1 == parts;
            float* const c = done ? sums[turn] : wait;
            const auto run = rows > 16 ? run_unit<2> : run_unit<1>;
            run(w, tile_at(row), rows > 16 ? tile_at(row + 16) : tile_at(row), steps,
                part == 0 ? nullptr : wait, c, streams, last, *job.sink);
            last = {};
            if (!done) continue;
            const Epilogue* const e = epilogues.of(first + p);
            // The last of these panels is followed by the first, 32 rows on (kTake: unused).
            const bool turns = p + 1 == panels && next < block_end;
            last = {c, first + p, row, rows, e, turns ? kUnitRows * e->ld - p * 32 : 32};
            turn ^= 1;
          }
        }
      }
    }
  }
  finish(last, 0, last.rows, *job.sink);
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
