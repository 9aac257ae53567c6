#include "common/kernels/norm.hpp"

#include <cassert>
#include <cmath>

#include "common/kernels/cpu/norm_impl.hpp"
#include "common/kernels/cpu/rounding.hpp"

namespace moesaic {
namespace norm_detail {
namespace {

float dot_scalar(const float* a, const float* b, std::size_t n) {
  Stripes p{};
  for (std::size_t k = 0; k < n; ++k) p[k % kStripes] = std::fma(a[k], b[k], p[k % kStripes]);
  return fold(p);
}

float sum_scalar(const float* a, std::size_t n) {
  Stripes p{};
  for (std::size_t k = 0; k < n; ++k) p[k % kStripes] += a[k];
  return fold(p);
}

float deviation_scalar(const float* x, float mean, std::size_t n) {
  Stripes p{};
  for (std::size_t k = 0; k < n; ++k) {
    const float d = x[k] - mean;
    p[k % kStripes] = std::fma(d, d, p[k % kStripes]);
  }
  return fold(p);
}

void apply_scalar(const float* x, float mean, float inv, const float* weight, const float* bias,
                  std::size_t n, bool round, float* y_f32, Bf16* y_bf16) {
  for (std::size_t c = 0; c < n; ++c)
    store_row1(normalised(x, mean, inv, weight, bias, c), c, round, y_f32, y_bf16);
}

}  // namespace

const Level kScalar = {dot_scalar, dots_one_by_one<dot_scalar>, sum_scalar, deviation_scalar,
                       apply_scalar};

const Level& level_for(Isa isa) {
  if (isa >= Isa::kAvx512) return kAvx512;
  return isa == Isa::kAvx2 ? kAvx2 : kScalar;
}

}  // namespace norm_detail

namespace {

using norm_detail::Level;

float inverse_root(float sum_of_squares, std::size_t n, float eps) {
  return 1.0F / std::sqrt(sum_of_squares / static_cast<float>(n) + eps);
}

template <const Level& kLevel>
void rms_norm_at(const float* x, const float* weight, float eps, std::size_t n, bool round,
                 float* y_f32, Bf16* y_bf16) {
  assert(n > 0);
  const float inv = inverse_root(kLevel.dot(x, x, n), n, eps);
  kLevel.apply(x, 0.0F, inv, weight, nullptr, n, round, y_f32, y_bf16);
}

template <const Level& kLevel>
void layer_norm_at(const float* x, const float* weight, const float* bias, float eps, std::size_t n,
                   bool round, float* y_f32, Bf16* y_bf16) {
  assert(n > 0);
  const float mean = kLevel.sum(x, n) / static_cast<float>(n);
  const float inv = inverse_root(kLevel.deviation(x, mean, n), n, eps);
  kLevel.apply(x, mean, inv, weight, bias, n, round, y_f32, y_bf16);
}

}  // namespace

RmsNormFn rms_norm_for(Isa isa) {
  if (isa >= Isa::kAvx512) return rms_norm_at<norm_detail::kAvx512>;
  return isa == Isa::kAvx2 ? rms_norm_at<norm_detail::kAvx2> : rms_norm_at<norm_detail::kScalar>;
}

LayerNormFn layer_norm_for(Isa isa) {
  if (isa >= Isa::kAvx512) return layer_norm_at<norm_detail::kAvx512>;
  return isa == Isa::kAvx2 ? layer_norm_at<norm_detail::kAvx2>
                           : layer_norm_at<norm_detail::kScalar>;
}

void rms_norm(const float* x, const float* weight, float eps, std::size_t n, bool round,
              float* y_f32, Bf16* y_bf16) {
  static const RmsNormFn best = rms_norm_for(active_isa());
  best(x, weight, eps, n, round, y_f32, y_bf16);
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, std::size_t n,
                bool round, float* y_f32, Bf16* y_bf16) {
  static const LayerNormFn best = layer_norm_for(active_isa());
  best(x, weight, bias, eps, n, round, y_f32, y_bf16);
}

float stripe64_dot(const float* a, const float* b, std::size_t n) {
  static const Level& best = norm_detail::level_for(active_isa());
  return b ? best.dot(a, b, n) : best.sum(a, n);
}

void rms_norm_ref(const float* x, const float* weight, float eps, std::size_t n, bool round,
                  float* y_f32, Bf16* y_bf16) {
  double sum = 0;
  for (std::size_t c = 0; c < n; ++c) sum += double{x[c]} * x[c];
  const double inv = 1 / std::sqrt(sum / static_cast<double>(n) + eps);
  for (std::size_t c = 0; c < n; ++c)
    store_row1(static_cast<float>(x[c] * inv * weight[c]), c, round, y_f32, y_bf16);
}

void layer_norm_ref(const float* x, const float* weight, const float* bias, float eps,
                    std::size_t n, bool round, float* y_f32, Bf16* y_bf16) {
  double mean = 0;
  for (std::size_t c = 0; c < n; ++c) mean += x[c];
  mean /= static_cast<double>(n);
  double var = 0;
  for (std::size_t c = 0; c < n; ++c) var += (x[c] - mean) * (x[c] - mean);
  const double inv = 1 / std::sqrt(var / static_cast<double>(n) + eps);
  for (std::size_t c = 0; c < n; ++c)
    store_row1(static_cast<float>((x[c] - mean) * inv * weight[c] + bias[c]), c, round, y_f32,
               y_bf16);
}

}  // namespace moesaic
