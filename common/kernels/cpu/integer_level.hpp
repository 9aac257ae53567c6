#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "common/kernels/cpu/row_layout.hpp"
#include "common/kernels/packed_matrix.hpp"

namespace moesaic::cpu {

class PanelSink;

/// A rectangle of an integer product: panels x rows, on the calling thread.
struct IntegerJob {
  const PackedMatrix* w = nullptr;
  const RowLayout* layout = nullptr;
  const std::byte* x = nullptr;  ///< prepared rows
  std::size_t first_row = 0;     ///< a multiple of 16
  std::size_t last_row = 0;      ///< at most kIntegerBlockRows later
  std::size_t first_panel = 0, last_panel = 0;
  const PanelSink* sink = nullptr;
};

/// Most rows of a job; so many activations and sums of a panel stay in L2.
inline constexpr std::size_t kIntegerBlockRows = 256;
/// Layouts of so many rows are not worth tiles: reading the weights takes longer than products.
inline constexpr std::size_t kRowsWithoutTiles = 8;
/// Up to so many rows weights are decoded in registers for them, beyond into L1 for all rows.
inline constexpr std::size_t kRegisterRows = 12;

/// Integer products of one level. Every level gives the same bits:
///   I_b = sum over the block of w[n][k] * q[k], exact
///   acc = float(I_0) * s_0; acc = fma(float(I_b), s_b, acc), b ascending; y = acc * scale[n]
struct IntegerLevel {
  /// As `quantize_block`.
  float (*quantize)(const float* x, std::size_t cols, std::size_t block, std::int8_t* q,
                    std::size_t stride);
  void (*run)(const IntegerJob& job);
  /// True if products of so many rows read the sums of activations; null: always.
  bool (*reads_sums)(WeightFormat format, std::size_t rows) = nullptr;
};

extern const IntegerLevel kIntegerScalar;
extern const IntegerLevel kIntegerAvx2;
extern const IntegerLevel kIntegerAvx512;
extern const IntegerLevel kIntegerAmx;

/// Scale of a block of activations and its inverse, by the bits of its largest magnitude.
struct BlockScale {
  float scale = 0;
  float inverse = 0;  ///< 0: the block becomes zeros
};
inline BlockScale block_scale(std::uint32_t largest_bits) {
  const auto m = std::bit_cast<float>(largest_bits);
  if (largest_bits >= 0x7f800000U) return {std::numeric_limits<float>::quiet_NaN(), 0};
  const float inverse = 127.0F / m;
  if (!(inverse <= std::numeric_limits<float>::max())) return {};
  return {m / 127.0F, inverse};
}

/// How one thread streams weights. No bit depends on it.
struct Streams {
  std::size_t panels = 1;  ///< read side by side: 1, 2 or 4
  /// Bytes between what is read and what is prefetched; 0 leaves it to the hardware.
  std::size_t ahead = 4352;
  bool into_l2 = false;  ///< prefetched into L2 and no nearer
};
/// A single row waits for memory alone, several rows for their products too.
enum class StreamsOf : std::size_t { kRow, kRows };
Streams streams(StreamsOf of);
void set_streams(StreamsOf of, Streams streams);

/// Memory of the calling thread, 64-byte aligned, its contents undefined.
std::byte* integer_scratch(std::size_t bytes);

}  // namespace moesaic::cpu
