#include <algorithm>
#include <cmath>

#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/elementwise.hpp"

namespace moesaic::attention_detail {
namespace {

void dots_f32(const Dots& x) {
  const auto* b = reinterpret_cast<const float*>(x.b);
  for (std::size_t u = 0; u < x.units; ++u) {
    const float* a = static_cast<const float*>(x.a) + u * x.lda;
    for (std::size_t n = 0; n < x.columns; ++n) {
      float sum = 0;
      for (std::size_t k = 0; k < x.k; ++k) sum = std::fma(a[k], b[k * x.ldb + n], sum);
      x.c[u * x.ldc + n] += sum;
    }
  }
}

void dots_bf16(const Dots& x) {
  const auto* b = reinterpret_cast<const Bf16*>(x.b);
  for (std::size_t u = 0; u < x.units; ++u) {
    const float* a = static_cast<const float*>(x.a) + u * x.lda;
    for (std::size_t n = 0; n < x.columns; ++n) {
      float& c = x.c[u * x.ldc + n];
      for (std::size_t k0 = 0; k0 < x.k; k0 += 32) {
        float even = 0, odd = 0;
        for (std::size_t k = k0; k < std::min(k0 + 32, x.k); k += 2) {
          const Bf16* pair = b + (k / 2 * x.ldb + n) * 2;
          even = std::fma(a[k], bf16_to_f32(pair[0]), even);
          odd = std::fma(a[k + 1], bf16_to_f32(pair[1]), odd);
        }
        c += even + odd;
      }
    }
  }
}

void softmax(const Softmax& x) {
  for (std::size_t u = 0; u < x.units; ++u) {
    float* s = x.s + u * x.lds;
    float* l = x.l + u * 16;
    const std::size_t seen = x.seen(u);
    float max = kMasked;
    for (std::size_t t = 0; t < seen; ++t) max = std::max(max, s[t]);
    if (max > x.m[u] + x.slack) {
      const float r = exp_portable(x.m[u] - max);
      for (std::size_t i = 0; i < 16; ++i) l[i] *= r;
      for (std::size_t d = 0; d < x.dim; ++d) x.o[u * x.dim + d] *= r;
      x.m[u] = max;
    }
    for (std::size_t t = 0; t < x.tokens; ++t) {
      const float p = t < seen ? exp_portable(s[t] - x.m[u]) : 0.0F;
      l[t % 16] += p;
      s[t] = x.weights == Weights::kF32 ? p : round_to_bf16(p);
    }
  }
}

}  // namespace

const Level kScalar = {.dots_f32 = dots_f32,
                       .dots_bf16 = dots_bf16,
                       .softmax = softmax,
                       .int8_step = int8_step_scalar,
                       .integer = &cpu::kIntegerScalar};

}  // namespace moesaic::attention_detail
