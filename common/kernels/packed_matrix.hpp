#pragma once

#include <cstddef>
#include <memory>

#include "common/kernels/compute.hpp"
#include "common/kernels/weight_format.hpp"
#include "common/tensor/view.hpp"

namespace moesaic {

/// A weight matrix y = W x, W [rows, cols] = [N, K], in kernel layout: the panels of its format.
/// A gate/up matrix interleaves two: panel p holds gate rows 16p..16p+15 as rows 0..15 and up rows
/// 16p..16p+15 as rows 16..31.
struct PackedMatrix {
  WeightFormat format = WeightFormat::kBf16;
  std::size_t rows = 0;  ///< real N; of a gate/up matrix the width of one of the two
  std::size_t cols = 0;  ///< real K
  bool gate_up = false;
  const std::byte* data = nullptr;  ///< 64-byte aligned
  std::shared_ptr<const void> owner;

  std::size_t panels() const { return gate_up ? (rows + 15) / 16 : (rows + 31) / 32; }
  std::size_t padded_cols() const { return moesaic::padded_cols(format, cols); }
  std::size_t panel_bytes() const { return moesaic::panel_bytes(format, padded_cols()); }
  /// Columns of an activation row that share a scale, for integer formats.
  std::size_t a8_block() const { return moesaic::a8_block(padded_cols()); }
  std::size_t bytes() const { return panels() * panel_bytes(); }
};

/// Form of f32 values that become operands of `w` in a mode: f32 where the mode is kF32 or the
/// quantiser takes them, else rounded to bf16.
constexpr Compute operand_form(WeightFormat w, Compute mode) {
  return mode == Compute::kF32 || is_integer(w) ? Compute::kF32 : Compute::kBf16;
}

/// Packs W into kernel layout. bf16 sources stay bf16 in either mode (the f32 kernels widen them
/// exactly). Sources of another type become f32 for Compute::kF32 and are rounded to bf16 for
/// Compute::kBf16. Any strides (so also transposed sources).
PackedMatrix pack_matrix(const MatrixView& w, Compute compute);

/// Packs gate and up (equal shapes) interleaved, as `pack_matrix`; one format for both, so a bf16
/// matrix beside one of another type becomes f32 with it for Compute::kF32.
PackedMatrix pack_gate_up(const MatrixView& gate, const MatrixView& up, Compute compute);

/// One element of a view as f32 (exact for f32, bf16, f16; kU16 means bf16 bits).
float element_f32(const MatrixView& w, std::size_t row, std::size_t col);

/// Copies row `row` of a packed matrix (not gate/up) to out[cols] f32, exact; integer formats give
/// bf16(w * scale), as embeddings are used. For the tied embedding table.
void unpack_row(const PackedMatrix& w, std::size_t row, float* out);

}  // namespace moesaic
