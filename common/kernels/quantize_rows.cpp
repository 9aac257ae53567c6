#include "common/kernels/quantize_rows.hpp"

#include <algorithm>

#include "common/kernels/cpu/linear_level.hpp"
#include "common/kernels/elementwise.hpp"

namespace moesaic {

QuantizeBlockFn quantize_block_for(Isa isa) { return cpu::linear_level(isa).integer->quantize; }

float quantize_block(const float* x, std::size_t cols, std::size_t block, std::int8_t* q,
                     std::size_t stride) {
  static const auto run = quantize_block_for(active_isa());
  return run(x, cols, block, q, stride);
}

namespace {

/// A row, block by block.
/// @param q      [padded]
/// @param scales [padded / block]
void quantize_row(const float* x, std::size_t cols, std::size_t padded, std::size_t block,
                  std::int8_t* q, float* scales) {
  for (std::size_t first = 0; first < padded; first += block) {
    const std::size_t from = std::min(cols, first);
    *scales++ = quantize_block(x + from, std::min(block, cols - from), block, q + first);
  }
}

}  // namespace

Operand QuantizedRows::quantize(const Operand& x, std::size_t padded, std::size_t block,
                                ThreadPool& pool) {
  const std::size_t blocks = padded / block;
  values_.reserve(x.rows * padded);
  scales_.reserve(x.rows * blocks * sizeof(float));
  auto* const values = values_.as<std::int8_t>().data();
  auto* const scales = scales_.as<float>().data();
  constexpr std::size_t kRows = 8;
  pool.parallel_for((x.rows + kRows - 1) / kRows, [&](std::size_t part) {
    thread_local AlignedVector<float> widened;
    widened.resize(x.cols);
    for (std::size_t r = part * kRows; r < x.rows && r < (part + 1) * kRows; ++r)
      quantize_row(f32_row(x, r, widened.data()), x.cols, padded, block, values + r * padded,
                   scales + r * blocks);
  });
  return {Compute::kInt, values, x.rows, x.cols, padded, scales, block};
}

}  // namespace moesaic
