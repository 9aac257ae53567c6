#pragma once

#include <cstddef>
#include <cstdint>

#include "common/base/aligned_buffer.hpp"
#include "common/base/thread_pool.hpp"
#include "common/kernels/compute.hpp"
#include "common/kernels/isa.hpp"

namespace moesaic {

/// Quantises a block of activations:
///   m = max |x|;  scale = m / 127;  q = round_even(x * (127 / m)), zeros beyond `cols`
/// A block whose m is 0, or so small that 127 / m overflows, becomes zeros with scale 0. One with a
/// value that is not finite becomes zeros with scale NaN: every sum it enters is NaN then, and of
/// that row only.
/// @param x [cols] f32, cols <= block
/// @param q `block` values, in pieces of 64 (the last may be shorter) `stride` bytes apart
/// @return scale
/// @source ops/decisions/0002-numerics.md; the same bits at every level
float quantize_block(const float* x, std::size_t cols, std::size_t block, std::int8_t* q,
                     std::size_t stride = 64);
using QuantizeBlockFn = float (*)(const float*, std::size_t, std::size_t, std::int8_t*,
                                  std::size_t);
QuantizeBlockFn quantize_block_for(Isa isa);

/// Rows in the form that integer products read and that travels to expert shards.
class QuantizedRows {
 public:
  /// Room for rows, their contents undefined until `put`.
  /// @param padded columns of a row, a multiple of `block`
  void resize(std::size_t rows, std::size_t cols, std::size_t padded, std::size_t block);
  /// Quantises one row, zeros beyond its columns. Any thread, each row once.
  /// @param x [cols]
  void put(std::size_t row, const float* x);
  /// Resizes and puts all rows of x (f32 or bf16) over the pool.
  /// @return `view`
  Operand quantize(const Operand& x, std::size_t padded, std::size_t block, ThreadPool& pool);
  /// Valid until the next `resize`.
  Operand view() const { return view_; }

 private:
  AlignedBuffer values_, scales_;
  Operand view_;
};

}  // namespace moesaic
