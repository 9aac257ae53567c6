#pragma once

#include <span>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/base/thread_pool.hpp"
#include "common/quantize/quantize.hpp"
#include "common/tensor/bf16.hpp"

namespace moesaic {

/// E[x x^T] over rows that come in pieces, exactly symmetric: blocks of rows as bf16 matrix
/// products with f32 sums, the blocks added in f64. The pieces given to `add` decide where blocks
/// end, the pool's threads change nothing. One thread.
class MomentSum {
 public:
  explicit MomentSum(std::size_t cols);

  /// @param values [n, cols], finite
  /// @param picked rows of `values` that count, each as often as it is named
  void add(std::span<const Bf16> values, std::span<const std::uint32_t> picked, ThreadPool& pool);
  /// Rows 0, 1, ... of `values`, all of them.
  void add(std::span<const Bf16> values, ThreadPool& pool);

  /// Of no rows: zeros.
  InputStatistics mean(ThreadPool& pool) const;

 private:
  std::size_t cols_;
  std::size_t rows_ = 0;
  AlignedBuffer sums_;  ///< [cols][cols] f64, what is above the diagonal unused
};

/// The same of rows that are all there.
InputStatistics second_moment(std::span<const Bf16> values, std::size_t cols,
                              std::span<const std::uint32_t> picked, ThreadPool& pool);

/// What few rows say is pulled towards what many do: (n own + kappa all) / (n + kappa), n = rows
/// of `own`, which stay its rows.
/// @source the project's quantisation notes, 6.6
/// @pre    equal cols; n + kappa > 0
void blend(InputStatistics& own, const InputStatistics& all, double kappa);

}  // namespace moesaic
