#include "common/kernels/elementwise.hpp"

#include <cmath>

#include "common/kernels/cpu/elementwise_impl.hpp"
#include "common/kernels/cpu/exp_simd.hpp"
#include "common/kernels/cpu/rounding.hpp"

namespace moesaic {

float exp_portable(float x) { return cpu::exp1(x); }

float erf_portable(float x) {
  using namespace elementwise_detail;
  const float a = std::fabs(x);
  const float t = 1.0F / std::fma(kErfP, a, 1.0F);
  float p = kErfPoly[0];
  for (int i = 1; i < 5; ++i) p = std::fma(p, t, kErfPoly[i]);
  const float y = 1.0F - p * t * cpu::exp1(-(a * a));
  return std::copysign(y, x);
}

namespace elementwise_detail {
namespace {

void exp_scalar(const float* x, std::size_t n, float* y) {
  for (std::size_t i = 0; i < n; ++i) y[i] = cpu::exp1(x[i]);
}

void add_to_scalar(const float* x, std::size_t n, bool round, float* y) {
  for (std::size_t i = 0; i < n; ++i) y[i] = round ? round_to_bf16(x[i] + y[i]) : x[i] + y[i];
}

void to_bf16_scalar(const float* x, std::size_t n, Bf16* y) {
  for (std::size_t i = 0; i < n; ++i) y[i] = f32_to_bf16(x[i]);
}

const Elementwise kScalar = {exp_scalar,      quick_gelu_scalar, gelu_erf_scalar,
                             silu_mul_scalar, add_to_scalar,     to_bf16_scalar};

}  // namespace

void quick_gelu_scalar(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16) {
  for (std::size_t i = 0; i < n; ++i)
    store_row1(x[i] / (1.0F + cpu::exp1(x[i] * -cpu::kQuickGelu)), i, false, y_f32, y_bf16);
}

void gelu_erf_scalar(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16) {
  for (std::size_t i = 0; i < n; ++i)
    store_row1((0.5F * x[i]) * (1.0F + erf_portable(x[i] * kRootHalf)), i, false, y_f32, y_bf16);
}

void silu_mul_scalar(const float* g, const float* u, std::size_t n, float* y_f32, Bf16* y_bf16) {
  for (std::size_t i = 0; i < n; ++i) store_row1(cpu::silu1(g[i]) * u[i], i, false, y_f32, y_bf16);
}

}  // namespace elementwise_detail

const Elementwise& elementwise_for(Isa isa) {
  if (isa >= Isa::kAvx512) return elementwise_detail::kAvx512;
  return isa == Isa::kAvx2 ? elementwise_detail::kAvx2 : elementwise_detail::kScalar;
}

namespace {

const Elementwise& best() {
  static const Elementwise& chosen = elementwise_for(active_isa());
  return chosen;
}

}  // namespace

void quick_gelu(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16) {
  best().quick_gelu(x, n, y_f32, y_bf16);
}

void gelu_erf(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16) {
  best().gelu_erf(x, n, y_f32, y_bf16);
}

void silu_mul(const float* g, const float* u, std::size_t n, float* y_f32, Bf16* y_bf16) {
  best().silu_mul(g, u, n, y_f32, y_bf16);
}

void add_to(const float* x, std::size_t n, float* y) { best().add_to(x, n, false, y); }

void add_to_rounded(const float* x, std::size_t n, bool round, float* y) {
  best().add_to(x, n, round, y);
}

void to_bf16(const float* x, std::size_t n, Bf16* y) { best().to_bf16(x, n, y); }

}  // namespace moesaic
