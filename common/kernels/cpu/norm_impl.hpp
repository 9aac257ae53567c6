#pragma once

#include <array>
#include <cstddef>

#include "common/kernels/isa.hpp"
#include "common/tensor/bf16.hpp"

// What the levels of `norm` and `router_gate` share: the sums of one level and the fold.
namespace moesaic::norm_detail {

inline constexpr std::size_t kStripes = 64;
using Stripes = std::array<float, kStripes>;

/// p[j] += p[j + 32], then 16, 8, 4, 2, 1: the fixed fold of "stripe 64".
inline float fold(Stripes& p) {
  for (std::size_t half = kStripes / 2; half != 0; half /= 2)
    for (std::size_t j = 0; j < half; ++j) p[j] += p[j + half];
  return p[0];
}

/// Most rows and columns of `Level::dots`: a router has 64 experts at most.
inline constexpr std::size_t kDotRows = 6, kDotColumns = 64;

/// The row operations of one level.
struct Level {
  float (*dot)(const float* a, const float* b, std::size_t n);
  /// y[r][i] = dot(a[r], b + i * n, n) for r < rows <= kDotRows, i < count <= kDotColumns.
  void (*dots)(const float* const* a, std::size_t rows, const float* b, std::size_t count,
               std::size_t n, float* const* y);
  float (*sum)(const float* a, std::size_t n);
  /// Sum of (x - mean)^2.
  float (*deviation)(const float* x, float mean, std::size_t n);
  /// ((x - mean) * inv) * weight + bias (none if null), stored as `norm.hpp` says.
  void (*apply)(const float* x, float mean, float inv, const float* weight, const float* bias,
                std::size_t n, bool round, float* y_f32, Bf16* y_bf16);
};

/// `dots` by `dot`.
template <float (*kDot)(const float*, const float*, std::size_t)>
void dots_one_by_one(const float* const* a, std::size_t rows, const float* b, std::size_t count,
                     std::size_t n, float* const* y) {
  for (std::size_t i = 0; i < count; ++i)
    for (std::size_t r = 0; r < rows; ++r) y[r][i] = kDot(a[r], b + i * n, n);
}

extern const Level kScalar;
extern const Level kAvx2;
extern const Level kAvx512;

const Level& level_for(Isa isa);

/// One column of `Level::apply`.
inline float normalised(const float* x, float mean, float inv, const float* weight,
                        const float* bias, std::size_t c) {
  const float y = ((x[c] - mean) * inv) * weight[c];
  return bias ? y + bias[c] : y;
}

}  // namespace moesaic::norm_detail
