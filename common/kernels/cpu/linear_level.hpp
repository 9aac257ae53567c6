#pragma once

#include <array>
#include <cstddef>

#include "common/kernels/cpu/integer_level.hpp"
#include "common/kernels/cpu/row_layout.hpp"
#include "common/kernels/elementwise.hpp"
#include "common/kernels/isa.hpp"
#include "common/kernels/packed_matrix.hpp"

namespace moesaic::cpu {

/// What is summed, and from which weights.
enum class Sum : std::uint8_t {
  kBf16,        ///< bf16 weights and activations, per 32 k (or the level's own order)
  kF32Widened,  ///< f32 activations, bf16 weights widened: chains of 256 k
  kF32,         ///< f32 activations and weights: chains of 256 k
  kInteger,     ///< integer weights, int8 activations: exact in blocks
};
inline constexpr std::size_t kSums = 3;
inline constexpr std::size_t kMaxGroupRows = 12;

/// Adds one block of k to the sums of 32 outputs of T rows.
/// @param w        the block in its panel
/// @param x        the block in a group of T prepared rows
/// @param cols     k's of the block, <= kTileCols, a multiple of 32
/// @param c        [T][32]
/// @param prefetch memory to fetch along the way (tiles that do not prefetch ignore it)
using TileFn = void (*)(const std::byte* w, const std::byte* x, std::size_t cols, float* c,
                        const std::byte* prefetch);

/// Tiles of one kind of sum at one level: tile(lines, rows) prefetches `lines` (0..2) lines for
/// every two lines of weights it reads.
struct TileSet {
  std::size_t group_rows = 1;  ///< most rows of a tile
  bool pairs = false;          ///< activations as bf16 pairs
  bool flush_denormals = false;
  std::array<std::array<TileFn, kMaxGroupRows>, 3> tiles{};

  TileFn tile(std::size_t lines, std::size_t rows) const { return tiles[lines][rows - 1]; }
};

struct PanelJob;

/// Up to 32 finished sums of some rows.
struct SumRows {
  const float* c = nullptr;
  std::size_t ldc = 0;
  std::size_t rows = 0;
  std::size_t count = 0;
  const float* bias = nullptr;  ///< null or [count]
};

/// The numeric pieces of one level.
struct LinearLevel {
  std::array<TileSet, kSums> sums;
  const IntegerLevel* integer = nullptr;
  /// Computes a kBf16 job whose rows lie in bf16 tiles; null: the level has no tile instructions.
  void (*run_tiles)(const PanelJob& job) = nullptr;
  /// From so many rows on kBf16 products go to `run_tiles`.
  std::size_t least_tile_rows = 0;
  /// h[i] = silu(gate[i]) * up[i], 16 values, rounded to bf16 if `round`.
  void (*silu_mul)(const float* gate, const float* up, bool round, float* h) = nullptr;
  /// y[r][i] = c[r][i] + bias[i], to which `add` adds what y was.
  void (*store)(const SumRows& x, bool add, float* y, std::size_t ldy) = nullptr;
  /// y[r][i] = activation(c[r][i] + bias[i]), to the one of y_f32 and y_bf16 that is not null.
  void (*activate)(const SumRows& x, Activation activation, float* y_f32, Bf16* y_bf16,
                   std::size_t ldy) = nullptr;
  /// y[i] = weight * c[i], 32 values, to the one of y_f32 and y_bf16 that is not null: leaves of
  /// the expert tree.
  void (*leaves)(const float* c, float weight, float* y_f32, Bf16* y_bf16) = nullptr;

  /// Of a sum in floats; kInteger has no tiles.
  const TileSet* tiles(Sum sum) const {
    return sum == Sum::kInteger ? nullptr : &sums[static_cast<std::size_t>(sum)];
  }
  /// How a product with `w` wants `rows` rows.
  RowLayout layout(const PackedMatrix& w, Sum sum, std::size_t rows) const;
};

const LinearLevel& linear_scalar();
const LinearLevel& linear_avx2();
const LinearLevel& linear_avx512();
const LinearLevel& linear_avx512bf16();
const LinearLevel& linear_amx();
/// @pre isa is available in this build
const LinearLevel& linear_level(Isa isa);

/// The sum that fits a matrix and its operand.
Sum sum_of(const PackedMatrix& w, Compute compute);

/// What becomes of finished sums, for kernels that do it while they have them in registers. Rows
/// are those of the layout.
struct Epilogue {
  enum class Kind : std::uint8_t {
    kTake,       ///< anything else: PanelSink::take
    kStore,      ///< out[row * ld + n] = sum + bias[n]
    kAdd,        ///< out[row * ld + n] += sum + bias[n]
    kQuickGelu,  ///< out_bf16[row * ld + n] = quick_gelu(sum + bias[n]), rounded
    kSiluMul,    ///< out[row * ld + i] = silu(gate) * up, of interleaved panels
    kRows,       ///< rows[row][n] = sum * weights[row], f32
    kLeaves,     ///< the same as Bf16, rounded
  };
  Kind kind = Kind::kTake;
  float* out = nullptr;
  Bf16* out_bf16 = nullptr;
  std::size_t ld = 0;
  const float* bias = nullptr;  ///< null: none
  void* const* rows = nullptr;
  const float* weights = nullptr;  ///< null: ones
  bool stream = false;  ///< stores pass the caches by; rows are `whole_lines`; never kAdd
};

/// Results of more bytes are best stored past the caches: they leave them before they are read, and
/// would drive out what a product reads.
inline constexpr std::size_t kStreamBytes = std::size_t{8} << 20;
/// True if rows from `out` on, `row_bytes` apart, are whole cache lines, as such stores want them.
inline bool whole_lines(const void* out, std::size_t row_bytes) {
  return (reinterpret_cast<std::uintptr_t>(out) | row_bytes) % 64 == 0;
}

/// Takes finished sums: 32 outputs of one panel for some rows.
class PanelSink {
 public:
  virtual ~PanelSink() = default;
  /// What take() does with a panel whose outputs are all real.
  virtual Epilogue epilogue() const { return {}; }
  /// @param c [rows][ldc], 32 of them sums of rows first_row..first_row + rows - 1 of the layout
  virtual void take(std::size_t panel, std::size_t first_row, std::size_t rows, const float* c,
                    std::size_t ldc) const = 0;
};

/// `store` without vector instructions of its own, and `activate` by the row kernels of a level.
void store_plain(const SumRows& x, bool add, float* y, std::size_t ldy);
void activate_by(const Elementwise& rows, const SumRows& x, Activation activation, float* y_f32,
                 Bf16* y_bf16, std::size_t ldy);

/// A rectangle of a product: panels x groups of rows.
struct PanelJob {
  const PackedMatrix* w = nullptr;
  const LinearLevel* level = nullptr;
  const TileSet* tiles = nullptr;  ///< null: an integer product
  const RowLayout* layout = nullptr;
  const std::byte* x = nullptr;
  std::size_t first_group = 0, last_group = 0;
  std::size_t first_panel = 0, last_panel = 0;
  const PanelSink* sink = nullptr;
};

/// Rows whose sums a worker keeps beside it; larger jobs are run in blocks of rows.
inline constexpr std::size_t kBlockRows = 192;

/// The same for bf16 tiles, which keep no sums.
inline constexpr std::size_t kTileBlockRows = 1024;

/// Row blocks a product of many rows is cut into: whole groups, kBlockRows (integer products:
/// kIntegerBlockRows, bf16 tiles: kTileBlockRows) at most in each.
constexpr std::size_t row_blocks_for(const RowLayout& layout) {
  const std::size_t most_rows = layout.block > 0 ? kIntegerBlockRows
                                : layout.tiles   ? kTileBlockRows
                                                 : kBlockRows - kMaxGroupRows;
  return (layout.rows + most_rows - 1) / most_rows;
}
/// As many at most, whatever the layout.
constexpr std::size_t most_row_blocks(std::size_t rows) {
  return (rows + kBlockRows - kMaxGroupRows - 1) / (kBlockRows - kMaxGroupRows);
}

/// Computes the job on the calling thread. What it has stored is there for whoever is told by this
/// thread, streamed or not.
void run_panels(const PanelJob& job);

}  // namespace moesaic::cpu
