#include "common/kernels/elementwise.hpp"

#include <cmath>
#include <cstring>

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

void add_to_scalar(const float* x, std::size_t n, float* y) {
  for (std::size_t i = 0; i < n; ++i) y[i] += x[i];
}

void to_bf16_scalar(const float* x, std::size_t n, Bf16* y) {
  for (std::size_t i = 0; i < n; ++i) y[i] = f32_to_bf16(x[i]);
}

const Elementwise kScalar = {exp_scalar,    quick_gelu_scalar,  gelu_erf_scalar, silu_mul_scalar,
                             add_to_scalar, add_to_bf16_scalar, to_bf16_scalar,  from_bf16_scalar};

}  // namespace

void add_to_bf16_scalar(const Bf16* x, std::size_t n, Bf16* y) {
  for (std::size_t i = 0; i < n; ++i) y[i] = f32_to_bf16(bf16_to_f32(x[i]) + bf16_to_f32(y[i]));
}

void from_bf16_scalar(const Bf16* x, std::size_t n, float* y) {
  for (std::size_t i = 0; i < n; ++i) y[i] = bf16_to_f32(x[i]);
}

void quick_gelu_scalar(const float* x, std::size_t n, float* y_f32, Bf16* y_bf16) {
  for (std::size_t i = 0; i < n; ++i)
    store_row1(x[i] / (1.0F + cpu::exp1(x[i] * -cpu::kQuickGeluFactor)), i, false, y_f32, y_bf16);
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

void add_to(const float* x, std::size_t n, float* y) { best().add_to(x, n, y); }
void add_to(const Bf16* x, std::size_t n, Bf16* y) { best().add_to_bf16(x, n, y); }

void to_bf16(const float* x, std::size_t n, Bf16* y) { best().to_bf16(x, n, y); }

void widen(Compute form, const void* x, std::size_t n, float* y) {
  if (form == Compute::kF32)
    std::memcpy(y, x, n * sizeof(float));
  else
    best().from_bf16(static_cast<const Bf16*>(x), n, y);
}

const float* f32_row(const Operand& x, std::size_t row, float* buffer) {
  if (x.compute == Compute::kF32) return x.f32(row);
  widen(x.compute, x.row(row), x.cols, buffer);
  return buffer;
}

}  // namespace moesaic
