#include "common/quantize/input_factor.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <string>

#include "common/kernels/cpu/targets.hpp"
#include "common/kernels/isa.hpp"
#include "common/quantize/quantize.hpp"
#include "common/quantize/tasks.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kBlock = 64;
constexpr std::size_t kTile = 4;
/// Elements below this are zeros: beside a diagonal of sqrt(damping) they change nothing, and sums
/// with denormals are slow.
constexpr double kLeast = 0x1p-60;

// NOLINTNEXTLINE(modernize-use-using): the attribute belongs to the type
typedef double Eight __attribute__((vector_size(64), aligned(8), may_alias));

/// rows[i][c] -= sum over p of left[i][p] * across[p][c], p ascending: 4 rows, `cols` columns, a
/// multiple of 8.
/// @param rows, left `stride` apart   @param across [64][across_stride]
[[gnu::always_inline]] inline void update_body(double* rows, const double* left, std::size_t stride,
                                               const double* across, std::size_t across_stride,
                                               std::size_t cols) {
  for (std::size_t c = 0; c < cols; c += 8) {
    Eight sum[kTile];
#pragma GCC unroll 4
    for (std::size_t i = 0; i < kTile; ++i)
      sum[i] = *reinterpret_cast<const Eight*>(rows + i * stride + c);
    for (std::size_t p = 0; p < kBlock; ++p) {
      const Eight v = *reinterpret_cast<const Eight*>(across + p * across_stride + c);
#pragma GCC unroll 4
      for (std::size_t i = 0; i < kTile; ++i) sum[i] -= v * left[i * stride + p];
    }
#pragma GCC unroll 4
    for (std::size_t i = 0; i < kTile; ++i)
      *reinterpret_cast<Eight*>(rows + i * stride + c) = sum[i];
  }
}

using UpdateFn = void (*)(double*, const double*, std::size_t, const double*, std::size_t,
                          std::size_t);
void update_plain(double* rows, const double* left, std::size_t stride, const double* across,
                  std::size_t across_stride, std::size_t cols) {
  update_body(rows, left, stride, across, across_stride, cols);
}
MOESAIC_AVX2 void update_avx2(double* rows, const double* left, std::size_t stride,
                              const double* across, std::size_t across_stride, std::size_t cols) {
  update_body(rows, left, stride, across, across_stride, cols);
}
MOESAIC_AVX512 void update_avx512(double* rows, const double* left, std::size_t stride,
                                  const double* across, std::size_t across_stride,
                                  std::size_t cols) {
  update_body(rows, left, stride, across, across_stride, cols);
}
UpdateFn update_for(Isa isa) {
  if (isa >= Isa::kAvx512) return update_avx512;
  return isa >= Isa::kAvx2 ? update_avx2 : update_plain;
}

/// The lower Cholesky factor of a matrix of whole blocks, in place; the part above the diagonal is
/// not looked at. False: a pivot is not positive.
bool factor(double* a, std::size_t n, ThreadPool* pool) {
  const UpdateFn update = update_for(active_isa());
  AlignedBuffer across_memory(kBlock * n * sizeof(double));
  double* across = across_memory.as<double>().data();
  for (std::size_t b = 0; b < n; b += kBlock) {
    double turned[kBlock][kBlock] = {};  // the block's factor, transposed
    for (std::size_t p = 0; p < kBlock; ++p) {
      const double pivot = a[(b + p) * n + b + p];
      if (!(pivot > 0)) return false;
      const double root = std::sqrt(pivot);
      for (std::size_t i = p; i < kBlock; ++i) {
        double& element = a[(b + i) * n + b + p];
        element = i == p ? root : element / root;
        turned[p][i] = element;
      }
      for (std::size_t i = p + 1; i < kBlock; ++i)
        for (std::size_t j = p + 1; j <= i; ++j)
          a[(b + i) * n + b + j] -= turned[p][i] * turned[p][j];
    }
    const std::size_t next = b + kBlock;
    const std::size_t blocks = (n - next) / kBlock;
    for_each_task(pool, blocks, [&](std::size_t task) {
      for (std::size_t i = next + task * kBlock; i < next + (task + 1) * kBlock; ++i) {
        double* row = a + i * n + b;
        for (std::size_t p = 0; p < kBlock; ++p) {
          const double x = row[p] / turned[p][p];
          row[p] = x;
          across[p * n + i] = x;
          for (std::size_t q = p + 1; q < kBlock; ++q) row[q] -= x * turned[p][q];
        }
      }
    });
    for_each_task(pool, blocks, [&](std::size_t task) {
      const std::size_t first = next + task * kBlock;
      for (std::size_t i = first; i < first + kBlock; i += kTile)
        update(a + i * n + next, a + i * n + b, n, across + next, n, first + kBlock - next);
    });
  }
  return true;
}

}  // namespace

Result<std::shared_ptr<const InputFactor>> InputFactor::make(const InputStatistics& stats,
                                                             double damping, ThreadPool* pool) {
  const std::size_t cols = stats.cols;
  if (stats.second_moment.size() != cols * cols)
    return fail(Errc::kShapeMismatch,
                "input statistics: " + std::to_string(stats.second_moment.size()) +
                    " second moments, " + std::to_string(cols) + " x " + std::to_string(cols) +
                    " expected");
  if (!(damping > 0 && damping <= 1e6))
    return fail(Errc::kInvalidArgument,
                "damping " + std::to_string(damping) + " is not a positive number");
  double trace = 0;
  for (std::size_t i = 0; i < cols * cols; ++i) {
    const float value = stats.second_moment[i];
    if ((std::bit_cast<std::uint32_t>(value) & 0x7fffffffU) >= 0x7f800000U)
      return fail(Errc::kInvalidArgument, "input statistics: row " + std::to_string(i / cols) +
                                              ", column " + std::to_string(i % cols) + ": " +
                                              std::to_string(value));
    if (i / cols == i % cols) trace += double{value};
  }
  // Nothing was seen, or zeros only: then every input counts alike.
  const double mean = trace > 0 ? trace / static_cast<double>(cols) : 1;

  // From the last column to the first, so that the lower factor of that order is the upper one of
  // ours. Padding comes last and is the identity.
  const std::size_t n = (cols + kBlock - 1) / kBlock * kBlock;
  AlignedBuffer work(n * n * sizeof(double));
  double* a = work.as<double>().data();
  for (std::size_t i = 0; i < n; ++i) {
    if (i >= cols) {
      a[i * n + i] = 1;
      continue;
    }
    const float* from = stats.second_moment.data() + (cols - 1 - i) * cols;
    for (std::size_t j = 0; j <= i; ++j) a[i * n + j] = double{from[cols - 1 - j]} / mean;
    a[i * n + i] += damping;
  }
  if (!factor(a, n, pool))
    return fail(Errc::kInvalidArgument,
                "input statistics: second moments are not positive semidefinite");

  std::shared_ptr<InputFactor> made(new InputFactor);
  made->cols_ = cols;
  made->padded_ = (cols + 127) / 128 * 128;
  const std::size_t blocks = made->padded_ / kStride;
  made->r_ = AlignedBuffer(blocks * (blocks + 1) / 2 * kStride * kStride * sizeof(float));
  made->inverse_.resize(made->padded_);
  float* const r = made->r_.as<float>().data();
  for_each_task(pool, blocks, [&](std::size_t block) {
    const std::size_t first = block * kStride;
    for (std::size_t j = 0; j < std::min(first + kStride, cols); ++j) {
      float* const row = r + place(j, first);
      for (std::size_t k = std::max(first, j); k < std::min(first + kStride, cols); ++k)
        if (const double element = a[(cols - 1 - j) * n + cols - 1 - k];
            std::fabs(element) >= kLeast)
          row[k - first] = static_cast<float>(element);
      if (j >= first) made->inverse_[j] = 1 / row[j - first];
    }
  });
  return std::shared_ptr<const InputFactor>(std::move(made));
}

}  // namespace moesaic
