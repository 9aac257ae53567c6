#pragma once

#include <cstddef>
#include <cstdint>

#include "common/kernels/compute.hpp"
#include "common/kernels/isa.hpp"

namespace moesaic {

/// exp by one degree-5 polynomial, the same IEEE operations at every level (never libm): arguments
/// are clamped so that x * log2(e) is in [-126, 126]. Relative error <= 4e-6 at -80, less nearer
/// zero.
float exp_portable(float x);
/// Abramowitz and Stegun 7.1.26 with `exp_portable`: |error| <= 1.5e-7 + its own rounding.
float erf_portable(float x);

/// What may follow a product in one go: x * sigmoid(1.702 x), or 0.5 x (1 + erf(x / sqrt(2))).
enum class Activation : std::uint8_t { kQuickGelu, kGeluErf };

// Row kernels, n values, every output written, in place allowed. `out.compute` rounding: y_bf16
// non-null gets the rounded values, y_f32 non-null the f32 ones.
/// x * sigmoid(1.702 x)
void quick_gelu(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16);
/// 0.5 x (1 + erf(x / sqrt(2)))
void gelu_erf(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16);
/// g / (1 + exp(-g)) * u
void silu_mul(const float* g, const float* u, std::size_t n, float* y_f32, Bf16* y_bf16);
/// y[i] += x[i]
void add_to(const float* x, std::size_t n, float* y);
/// y[i] = round(x[i] + y[i]): one addition of the expert tree.
void add_to(const Bf16* x, std::size_t n, Bf16* y);
/// Nearest-even rounding of n values.
void to_bf16(const float* x, std::size_t n, Bf16* y);
/// n values of a form (kF32 or kBf16) as f32.
void widen(Compute form, const void* x, std::size_t n, float* y);
/// A row of x (kF32 or kBf16) as f32: itself, or widened into `buffer` [x.cols].
const float* f32_row(const Operand& x, std::size_t row, float* buffer);

/// The row kernels of one level; all levels give the same bits.
struct Elementwise {
  void (*exp)(const float* x, std::size_t n, float* y);  ///< `exp_portable` of each value
  void (*quick_gelu)(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16);
  void (*gelu_erf)(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16);
  void (*silu_mul)(const float* g, const float* u, std::size_t n, float* y_f32, Bf16* y_bf16);
  void (*add_to)(const float* x, std::size_t n, float* y);
  void (*add_to_bf16)(const Bf16* x, std::size_t n, Bf16* y);
  void (*to_bf16)(const float* x, std::size_t n, Bf16* y);
  void (*from_bf16)(const Bf16* x, std::size_t n, float* y);
};
const Elementwise& elementwise_for(Isa isa);

}  // namespace moesaic
