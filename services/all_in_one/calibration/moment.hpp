#pragma once

#include <span>
#include <vector>

#include "common/base/thread_pool.hpp"
#include "common/quantize/quantize.hpp"
#include "common/tensor/bf16.hpp"

namespace moesaic {

/// E[x x^T] over rows, exactly symmetric: blocks of rows as bf16 matrix products with f32 sums,
/// the blocks added in f64.
/// @param values [n, cols], finite
/// @param picked rows of `values` that count, each as often as it is named
/// @return of no rows: zeros
InputStatistics second_moment(std::span<const Bf16> values, std::size_t cols,
                              std::span<const std::uint32_t> picked, ThreadPool& pool);

/// What few rows say is pulled towards what many do: (n own + kappa all) / (n + kappa), n = rows
/// of `own`, which stay its rows.
/// @source the project's quantisation notes, 6.6
/// @pre    equal cols; n + kappa > 0
void blend(InputStatistics& own, const InputStatistics& all, double kappa);

}  // namespace moesaic
