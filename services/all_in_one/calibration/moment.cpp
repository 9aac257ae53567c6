#include "services/all_in_one/calibration/moment.hpp"

#include <algorithm>
#include <cassert>
#include <numeric>

#include "common/kernels/linear.hpp"

namespace moesaic {
namespace {

/// Rows of one product: its sums stay f32-exact enough, its operands small.
constexpr std::size_t kRows = 1024;
/// Rows of the result computed at once, so that wide matrices need no second one in f32.
constexpr std::size_t kPart = 512;
/// Columns that a thread turns at once: a cache line of bf16.
constexpr std::size_t kTurn = 32;
constexpr std::size_t kTile = 64;

}  // namespace

MomentSum::MomentSum(std::size_t cols) : cols_(cols), sums_(cols * cols * sizeof(double)) {}

void MomentSum::add(std::span<const Bf16> values, std::span<const std::uint32_t> picked,
                    ThreadPool& pool) {
  if (picked.empty()) return;
  rows_ += picked.size();
  double* const sums = sums_.as<double>().data();
  const auto block = std::min(kRows, picked.size());
  auto turned_memory = AlignedBuffer::uninitialized(cols_ * block * sizeof(Bf16));
  auto part_memory = AlignedBuffer::uninitialized(std::min(kPart, cols_) * cols_ * sizeof(float));
  Bf16* const turned = turned_memory.as<Bf16>().data();
  float* const part = part_memory.as<float>().data();
  for (std::size_t first = 0; first < picked.size(); first += block) {
    const auto rows = std::min(block, picked.size() - first);
    pool.parallel_for((cols_ + kTurn - 1) / kTurn, [&](std::size_t task) {
      const auto from = task * kTurn;
      const auto to = std::min(from + kTurn, cols_);
      for (std::size_t r = 0; r < rows; ++r) {
        const Bf16* const x = values.data() + std::size_t{picked[first + r]} * cols_;
        for (std::size_t c = from; c < to; ++c) turned[c * rows + r] = x[c];
      }
    });
    // X^T X is a product with the weights X^T and the inputs X^T; of each part of its rows only
    // what is left of the diagonal.
    const auto stride = static_cast<std::ptrdiff_t>(rows);
    auto w = pack_matrix(
        {reinterpret_cast<const std::byte*>(turned), DType::kBf16, cols_, rows, stride, 1},
        Compute::kBf16);
    for (std::size_t top = 0; top < cols_; top += kPart) {
      const auto height = std::min(kPart, cols_ - top);
      const auto width = w.rows = top + height;
      const Operand x{Compute::kBf16, turned + top * rows, height, rows, rows};
      linear(w, x, part, width, nullptr, pool);
      pool.parallel_for(height, [&](std::size_t i) {
        double* const sum = sums + (top + i) * cols_;
        for (std::size_t c = 0; c <= top + i; ++c) sum[c] += double{part[i * width + c]};
      });
    }
  }
}

void MomentSum::add(std::span<const Bf16> values, ThreadPool& pool) {
  std::vector<std::uint32_t> all(values.size() / cols_);
  std::iota(all.begin(), all.end(), 0U);
  add(values, all, pool);
}

InputStatistics MomentSum::mean(ThreadPool& pool) const {
  InputStatistics out;
  out.cols = cols_;
  out.rows = rows_;
  out.second_moment.resize(cols_ * cols_);
  if (rows_ == 0) return out;
  const double* const sums = sums_.as<double>().data();
  float* const to = out.second_moment.data();
  const auto n = static_cast<double>(rows_);
  const auto tiles = (cols_ + kTile - 1) / kTile;
  pool.parallel_for(tiles, [&](std::size_t tile) {
    const auto last = std::min((tile + 1) * kTile, cols_);
    for (std::size_t left = 0; left <= tile * kTile; left += kTile)
      for (std::size_t i = tile * kTile; i < last; ++i)
        for (std::size_t j = left; j < std::min(left + kTile, i + 1); ++j)
          to[i * cols_ + j] = to[j * cols_ + i] = static_cast<float>(sums[i * cols_ + j] / n);
  });
  return out;
}

InputStatistics second_moment(std::span<const Bf16> values, std::size_t cols,
                              std::span<const std::uint32_t> picked, ThreadPool& pool) {
  MomentSum sum(cols);
  sum.add(values, picked, pool);
  return sum.mean(pool);
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
