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

void QuantizedRows::resize(std::size_t rows, std::size_t cols, std::size_t padded,
                           std::size_t block) {
  values_.reserve(rows * padded);
  scales_.reserve(rows * (padded / block) * sizeof(float));
  view_ = {Compute::kInt, values_.data(), rows, cols, padded, scales_.as<float>().data(), block};
}

void QuantizedRows::put(std::size_t row, const float* x) {
  const std::size_t padded = view_.stride, block = view_.block;
  std::int8_t* q = values_.as<std::int8_t>().data() + row * padded;
  float* scale = scales_.as<float>().data() + row * (padded / block);
  for (std::size_t first = 0; first < padded; first += block) {
    const std::size_t from = std::min(view_.cols, first);
    *scale++ = quantize_block(x + from, std::min(block, view_.cols - from), block, q + first);
  }
}

Operand QuantizedRows::quantize(const Operand& x, std::size_t padded, std::size_t block,
                                ThreadPool& pool) {
  resize(x.rows, x.cols, padded, block);
  constexpr std::size_t kRows = 8;
  pool.parallel_for((x.rows + kRows - 1) / kRows, [&](std::size_t part) {
    thread_local AlignedVector<float> widened;
    widened.resize(x.cols);
    for (std::size_t r = part * kRows; r < x.rows && r < (part + 1) * kRows; ++r)
      put(r, f32_row(x, r, widened.data()));
  });
  return view_;
}

}  // namespace moesaic
