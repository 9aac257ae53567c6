#include <algorithm>
#include <bit>
#include <cmath>

#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/elementwise.hpp"

namespace moesaic::attention_detail {
namespace {

std::int32_t key_dot(const Int8Step& x, std::size_t unit, std::size_t t) {
  const std::int8_t* q = x.q + unit * int8_query_stride(x.dim);
  std::int32_t sum = -x.query[unit].offset;
  for (std::size_t d = 0; d < x.dim; ++d)
    sum += q[d] * std::to_integer<std::int32_t>(x.page[(d / 4 * kPageTokens + t) * 4 + d % 4]);
  return sum;
}

/// NaN (of a row that is NaN anyway) becomes 0.
std::int32_t to_u8(float x) { return x > 0 ? static_cast<std::int32_t>(std::nearbyint(x)) : 0; }

void add_values(const Int8Step& x, const std::int32_t* p, float scale, float* o) {
  const auto* part = reinterpret_cast<const std::int8_t*>(x.values());
  for (std::size_t d0 = 0; d0 < x.dim; d0 += kRun, part += kRun * kPageTokens) {
    const std::size_t width = std::min(kRun, x.dim - d0);
    for (std::size_t d = 0; d < width; ++d) {
      std::int32_t sum = 0;
      for (std::size_t t = 0; t < kPageTokens; ++t)
        sum += p[t] * part[(t / 4 * width + d) * 4 + t % 4];
      o[d0 + d] = std::fma(static_cast<float>(sum), scale, o[d0 + d]);
    }
  }
}

}  // namespace

void int8_step_scalar(const Int8Step& x) {
  for (std::size_t u = 0; u < x.units; ++u) {
    const std::size_t seen = x.seen(u);
    float* l = x.l + u * 16;
    float* o = x.o + u * x.dim;
    float s[kPageTokens];
    float max = kMasked;
    for (std::size_t t = 0; t < seen; ++t) {
      s[t] = static_cast<float>(key_dot(x, u, t)) * (x.query[u].scale * x.key_scales()[t]);
      max = std::max(max, s[t]);
    }
    if (max > x.m[u]) {
      const float r = exp_portable(x.m[u] - max);
      for (std::size_t i = 0; i < 16; ++i) l[i] *= r;
      for (std::size_t d = 0; d < x.dim; ++d) o[d] *= r;
      x.m[u] = max;
    }
    auto largest = std::bit_cast<std::uint32_t>(1e-30F);
    for (std::size_t t = 0; t < seen; ++t) {
      const float p = exp_portable(s[t] - x.m[u]);
      l[t % 16] += p;
      s[t] = p * x.value_scales()[t];
      largest = std::max(largest, std::bit_cast<std::uint32_t>(s[t]));
    }
    const auto pm = std::bit_cast<float>(largest);
    const float to_255 = 255.0F / pm;
    std::int32_t p[kPageTokens] = {};
    for (std::size_t t = 0; t < seen; ++t) p[t] = to_u8(s[t] * to_255);
    add_values(x, p, pm / 255.0F, o);
  }
}

}  // namespace moesaic::attention_detail
