#pragma once

#include <cstddef>
#include <cstdint>

#include "common/base/aligned_buffer.hpp"
#include "common/base/thread_pool.hpp"
#include "common/kernels/compute.hpp"
#include "common/kernels/isa.hpp"

namespace moesaic {

/// Quantises a row of activations, per block of `block` columns:
///   m = max |x|;  scale = m / 127;  q = round_even(x * (127 / m)), zeros beyond `cols`
/// A block whose m is 0, or so small that 127 / m overflows, becomes zeros with scale 0. One with a
/// value that is not finite becomes zeros with scale NaN: every sum it enters is NaN then, and of
/// that row only.
/// @param x      [cols] f32
/// @param q      [padded]
/// @param scales [padded / block]
/// @source ops/decisions/0002-numerics.md; the same bits at every level
void quantize_row(const float* x, std::size_t cols, std::size_t padded, std::size_t block,
                  std::int8_t* q, float* scales);
using QuantizeRowFn = void (*)(const float*, std::size_t, std::size_t, std::size_t, std::int8_t*,
                               float*);
QuantizeRowFn quantize_row_for(Isa isa);

/// Rows in the form that integer products read and that travels to expert shards.
class QuantizedRows {
 public:
  /// Quantises all rows of x (f32 or bf16) over the pool.
  /// @return the rows; valid until the next call
  Operand quantize(const Operand& x, std::size_t padded, std::size_t block, ThreadPool& pool);

 private:
  AlignedBuffer values_, scales_;
};

}  // namespace moesaic
