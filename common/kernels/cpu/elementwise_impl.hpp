#pragma once

#include "common/kernels/elementwise.hpp"

namespace moesaic::elementwise_detail {

extern const Elementwise kAvx2;
extern const Elementwise kAvx512;

inline constexpr float kRootHalf = 0.707106781F;
/// Abramowitz and Stegun 7.1.26: erf(x) = 1 - (a1 t + .. + a5 t^5) exp(-x^2), t = 1 / (1 + p x).
inline constexpr float kErfP = 0.3275911F;
inline constexpr float kErfPoly[] = {1.061405429F, -1.453152027F, 1.421413741F, -0.284496736F,
                                     0.254829592F};

// The last n % 8 values of the avx2 kernels, and all of the scalar ones.
void quick_gelu_scalar(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16);
void gelu_erf_scalar(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16);
void silu_mul_scalar(const float* g, const float* u, std::size_t n, float* y_f32, Bf16* y_bf16);
void add_to_bf16_scalar(const Bf16* x, std::size_t n, Bf16* y);
void from_bf16_scalar(const Bf16* x, std::size_t n, float* y);

}  // namespace moesaic::elementwise_detail
