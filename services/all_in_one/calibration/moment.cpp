#include "services/all_in_one/calibration/moment.hpp"

#include <algorithm>
#include <cassert>

#include "common/kernels/linear.hpp"

namespace moesaic {
namespace {

/// Rows of one product: its sums stay f32-exact enough, its operands small.
constexpr std::size_t kRows = 512;
/// Rows of the result computed at once, so that wide matrices need no second one in f32.
constexpr std::size_t kPart = 512;

}  // namespace

InputStatistics second_moment(std::span<const Bf16> values, std::size_t cols,
                              std::span<const std::uint32_t> picked, ThreadPool& pool) {
  InputStatistics out;
  out.cols = cols;
  out.rows = picked.size();
  out.second_moment.assign(cols * cols, 0.0F);
  if (picked.empty()) return out;
  std::vector<double> sums(cols * cols);
  std::vector<Bf16> turned(cols * std::min(kRows, picked.size()));
  std::vector<float> part(std::min(kPart, cols) * cols);
  for (std::size_t first = 0; first < picked.size(); first += kRows) {
    const auto rows = std::min(kRows, picked.size() - first);
    pool.parallel_for(cols, [&](std::size_t c) {
      for (std::size_t r = 0; r < rows; ++r)
        turned[c * rows + r] = values[picked[first + r] * cols + c];
    });
    // X^T X is a product with the weights X^T and the inputs X^T.
    const auto stride = static_cast<std::ptrdiff_t>(rows);
    const auto w = pack_matrix(
        {reinterpret_cast<const std::byte*>(turned.data()), DType::kBf16, cols, rows, stride, 1},
        Compute::kBf16);
    for (std::size_t top = 0; top < cols; top += kPart) {
      const auto height = std::min(kPart, cols - top);
      const Operand x{Compute::kBf16, turned.data() + top * rows, height, rows, rows};
      linear(w, x, part.data(), cols, nullptr, pool);
      pool.parallel_for(height, [&](std::size_t i) {
        for (std::size_t c = 0; c < cols; ++c) sums[(top + i) * cols + c] += part[i * cols + c];
      });
    }
  }
  const auto n = static_cast<double>(picked.size());
  // The kernels' order of sums may tell x y from y x in the last bit.
  for (std::size_t i = 0; i < cols; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      const auto mean = static_cast<float>((sums[i * cols + j] + sums[j * cols + i]) / (2 * n));
      out.second_moment[i * cols + j] = out.second_moment[j * cols + i] = mean;
    }
  return out;
}

void blend(InputStatistics& own, const InputStatistics& all, double kappa) {
  assert(own.cols == all.cols);
  const auto n = static_cast<double>(own.rows);
  assert(n + kappa > 0);
  for (std::size_t i = 0; i < own.second_moment.size(); ++i)
    own.second_moment[i] = static_cast<float>(
        (n * double{own.second_moment[i]} + kappa * double{all.second_moment[i]}) / (n + kappa));
}

}  // namespace moesaic
