#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "common/kernels/compute.hpp"

namespace moesaic::cpu {

/// Columns of a block: what a tile takes at most, and one chain of the f32 order.
inline constexpr std::size_t kTileCols = 256;

/// How the kernels of one level want rows of activations: in blocks of kTileCols columns (the last
/// may be shorter), inside a block in groups of at most `group_rows` rows, the rows of a group
/// interleaved, so that tile after tile reads one stream. Group g holds rows first(g) ..
/// first(g + 1) - 1, sizes differ by one at most. A block of a group is
///   widened: [columns][rows of the group] f32 (bf16 values widened)
///   pairs:   [columns / 2][rows of the group][2] bf16
/// Columns from the real K on are zero.
///
/// Products on bf16 tiles (`tiles`) read rows in groups of 16, the last may be shorter:
///   bf16 [groups][padded K / 32][16][32], what stands in the place of rows that are not there is
///   never seen
///
/// Integer products (block > 0) read int8 rows in groups ("tiles") of 16, the last may be shorter:
///   values   int8 [groups][padded K / 64][tile_rows()][64]
///   scales   f32 [padded K / block][padded_rows()]
/// and, unless the kernels of the level do without (not `with_sums`; the room is there all the
/// same),
///   sums     i32 [padded K / block][padded_rows()]: of a row's values in the block
///   sums64   i32 [padded K / 64][padded_rows()]: the same for every 64 columns
///   sums16   i32 [padded K / 16]: the same for every 16 columns, if there is one row only
struct RowLayout {
  std::size_t rows = 0;
  std::size_t groups = 0;
  std::size_t padded_cols = 0;
  bool pairs = false;
  bool tiles = false;
  std::size_t block = 0;
  bool with_sums = true;

  RowLayout() = default;
  RowLayout(std::size_t num_rows, std::size_t group_rows, std::size_t num_padded_cols,
            bool as_pairs)
      : rows(num_rows),
        groups((num_rows + group_rows - 1) / group_rows),
        padded_cols(num_padded_cols),
        pairs(as_pairs) {}
  static RowLayout integer(std::size_t num_rows, std::size_t num_padded_cols,
                           std::size_t scale_block) {
    RowLayout layout(num_rows, kTileRows, num_padded_cols, false);
    layout.block = scale_block;
    return layout;
  }
  static RowLayout bf16_tiles(std::size_t num_rows, std::size_t num_padded_cols) {
    RowLayout layout(num_rows, kTileRows, num_padded_cols, true);
    layout.tiles = true;
    return layout;
  }
  static constexpr std::size_t kTileRows = 16;
  /// Columns and bytes of a bf16 tile.
  static constexpr std::size_t kTileK = 32, kTileBytes = kTileRows * 64;

  std::size_t first(std::size_t group) const {
    return block > 0 || tiles ? std::min(rows, group * kTileRows) : group * rows / groups;
  }
  std::size_t value_bytes() const { return pairs ? sizeof(Bf16) : sizeof(float); }
  std::size_t bytes() const {
    if (tiles) return groups * kTileRows * padded_cols * sizeof(Bf16);
    return block > 0 ? sums16_offset() + (rows == 1 ? padded_cols / 16 * 4 : 0)
                     : rows * padded_cols * value_bytes();
  }

  // Of bf16 tiles only.
  std::size_t tile_offset(std::size_t row, std::size_t k) const {
    return (row / kTileRows * (padded_cols / kTileK) + k / kTileK) * kTileBytes +
           row % kTileRows * 64 + k % kTileK * sizeof(Bf16);
  }

  // Of integer rows only.
  std::size_t tile_rows() const { return std::min(rows, kTileRows); }
  std::size_t padded_rows() const { return groups * tile_rows(); }
  /// Bytes from 64 columns of a row to the next 64.
  std::size_t chunk() const { return tile_rows() * 64; }
  std::size_t value_offset(std::size_t row, std::size_t k) const {
    return (row / kTileRows * (padded_cols / 64) + k / 64) * chunk() + row % kTileRows * 64 +
           k % 64;
  }
  std::size_t scales_offset() const { return padded_rows() * padded_cols; }
  std::size_t sums_offset() const { return scales_offset() + lines(padded_cols / block); }
  std::size_t sums64_offset() const { return sums_offset() + lines(padded_cols / block); }
  std::size_t sums16_offset() const { return sums64_offset() + lines(padded_cols / 64); }
  const float* scales(const std::byte* data) const {
    return reinterpret_cast<const float*>(data + scales_offset());
  }
  const std::int32_t* sums(const std::byte* data) const {
    return reinterpret_cast<const std::int32_t*>(data + sums_offset());
  }
  const std::int32_t* sums64(const std::byte* data) const {
    return reinterpret_cast<const std::int32_t*>(data + sums64_offset());
  }
  const std::int32_t* sums16(const std::byte* data) const {
    return reinterpret_cast<const std::int32_t*>(data + sums16_offset());
  }

  /// Byte offset of a group's block that starts at column k.
  std::size_t offset(std::size_t group, std::size_t k) const {
    const std::size_t block_cols = std::min(kTileCols, padded_cols - k);
    return (k * rows + first(group) * block_cols) * value_bytes();
  }

 private:
  /// Bytes of `count` lines of one 4-byte value a row.
  std::size_t lines(std::size_t count) const { return (count * padded_rows() * 4 + 63) / 64 * 64; }

 public:
  /// The group a row belongs to.
  std::size_t group_of(std::size_t row) const {
    if (block > 0 || tiles) return row / kTileRows;
    std::size_t g = row * groups / rows;
    while (first(g + 1) <= row) ++g;
    return g;
  }
};

/// A value that is exact in bf16 (or a NaN) as bf16.
inline Bf16 bf16_bits(float x) { return static_cast<Bf16>(std::bit_cast<std::uint32_t>(x) >> 16); }

/// The rows of an operand from `first` on.
inline Operand rows_from(Operand x, std::size_t first) {
  x.data = static_cast<const std::byte*>(x.data) + first * x.stride * operand_bytes(x.compute);
  if (x.compute == Compute::kInt) x.scales += first * (x.stride / x.block);
  x.rows -= first;
  return x;
}

/// Rearranges rows of groups [first_group, last_group) into `data`; rows for integer products are
/// quantised on the way, unless they are already.
/// @param rows layout row i is row rows[i] of x; null: row i
/// @pre an integer operand has the layout's block
void prepare_rows(const RowLayout& layout, const Operand& x, const std::uint32_t* rows,
                  std::size_t first_group, std::size_t last_group, std::byte* data);

/// Quantises K block `b` of every row of an integer layout.
/// @param x the block's columns of row 0, f32; `cols` of them are real
void prepare_block(const RowLayout& layout, std::size_t b, const float* x, std::size_t stride,
                   std::size_t cols, std::byte* data);

/// Stores `count` values of one row at columns first_col.. of a prepared layout: for pairs
/// they are bf16 values.
/// @pre the columns lie in one block
void store_prepared(const RowLayout& layout, std::size_t row, std::size_t first_col,
                    std::size_t count, const float* values, std::byte* data);

}  // namespace moesaic::cpu
