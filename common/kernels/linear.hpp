#pragma once

#include <span>

#include "common/base/thread_pool.hpp"
#include "common/kernels/compute.hpp"
#include "common/kernels/elementwise.hpp"
#include "common/kernels/isa.hpp"
#include "common/kernels/packed_matrix.hpp"

namespace moesaic {

/// y[m, n] = sum_k x[m, k] * w[n, k] (+ bias[n]), f32 out.
///   x kF32: weights widened exactly; per output one fma chain per 256 of K from +0, block sums
///   added ascending. x kBf16 (w must be bf16): the order of TDPBF16PS (per 32 k an even-k and an
///   odd-k fma chain from zero, their sum added), denormals are zero; at level kAvx512Bf16 the
///   order of vdpbf16ps.
///   w of an integer format: x kInt with w.a8_block(), or f32 or bf16 rows, which are quantised
/// first (`quantize_block`). I_b = exact int32 sum over block b; acc = float(I_0) * s_0, then
/// fma(float(I_b), s_b, acc), b ascending; y = acc * scale[n]. The same bits at every level.
/// The bias is added last, one f32 addition. A row of y depends on that row of x and on w only: the
/// kernel chosen for a number of rows (gemv, register tiles, ...) never changes bits. Work is split
/// over the pool by panels and rows, never along K.
/// @param y    [x.rows, ldy], columns 0..w.rows-1 written
/// @param bias null or [w.rows]
/// @pre   x.cols == w.cols, ldy >= w.rows, not w.gate_up
/// @source layouts and order of sums: ops/decisions/0002-numerics.md
void linear(const PackedMatrix& w, const Operand& x, float* y, std::size_t ldy, const float* bias,
            ThreadPool& pool);

/// y[m, n] += sum_k x[m, k] * w[n, k] (+ bias[n]): the sum and its bias first, then y; as `linear`
/// followed by `add_to`.
void linear_add(const PackedMatrix& w, const Operand& x, float* y, std::size_t ldy,
                const float* bias, ThreadPool& pool);

/// y = activation(x W^T + bias), stored in y.compute (bf16: rounded once); as `linear` followed by
/// the row kernel of elementwise.hpp.
/// @pre y.rows >= x.rows, y.cols >= w.rows; columns 0..w.rows-1 are written
void linear_activated(const PackedMatrix& w, const Operand& x, const float* bias,
                      Activation activation, const OperandOut& y, ThreadPool& pool);

/// h[m, i] = silu(gate_i . x_m) * (up_i . x_m) in f32, then stored in h.compute (bf16: rounded
/// once).
/// @pre w.gate_up, x.cols == w.cols, h.cols >= w.rows; h columns w.rows.. up to h.cols are written
/// zero
void linear_gate_up(const PackedMatrix& w, const Operand& x, const OperandOut& h, ThreadPool& pool);

/// One expert's share of a batch, or the shared or dense FFN.
struct FfnTask {
  const PackedMatrix* gate_up = nullptr;  ///< width x hidden
  const PackedMatrix* down = nullptr;     ///< hidden x width
  std::span<const std::uint32_t> rows;    ///< rows of x to compute; empty: all rows of x in order
  std::span<const float> weights;         ///< per entry of `rows`: w_e; empty: ones
  void* const* out = nullptr;             ///< per entry: where its [hidden] result goes
  Compute form = Compute::kF32;           ///< of results: kF32, or kBf16, rounded
};

/// Scratch of `ffn`, reused from call to call; grows to the largest batch.
struct FfnScratch {
  AlignedBuffer rows;
  AlignedBuffer hidden;
  AlignedBuffer wide;
  AlignedBuffer plan;
};

/// Runs all tasks: out[i] = weights[i] * down(silu(gate x) * (up x)). Tasks are taken largest
/// first by the pool's workers, large ones in row blocks, small ones by panels; bits do not depend
/// on it.
/// @param x operand rows of the layer, hidden wide
void ffn(std::span<const FfnTask> tasks, const Operand& x, FfnScratch& scratch, ThreadPool& pool);

// The pieces behind `linear`, for tests and benchmarks of one level.
using LinearFn = void (*)(const PackedMatrix& w, const Operand& x, float* y, std::size_t ldy,
                          const float* bias, std::size_t first_panel, std::size_t last_panel);

/// The kernel of one level: computes panels [first_panel, last_panel) for all rows of x on the
/// calling thread.
LinearFn linear_for(Isa isa);

/// Plain loop with f64 sums, kept for ever: checks the contract within a tolerance, not the bits.
void linear_ref(const PackedMatrix& w, const Operand& x, float* y, std::size_t ldy,
                const float* bias);

}  // namespace moesaic
