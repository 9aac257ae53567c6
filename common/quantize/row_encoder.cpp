#include "common/quantize/row_encoder.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace moesaic::quantize_detail {
namespace {

constexpr std::size_t kGroup = 16;
constexpr int kMostMult = 15;
constexpr float kMostCode = 7;

// The clones differ in speed only: every operation is rounded by IEEE rules, and products and sums
// are never fused.
#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define MOESAIC_VECTOR_CLONES [[gnu::target_clones("arch=skylake-avx512", "avx2", "default")]]
#else
#define MOESAIC_VECTOR_CLONES
#endif

/// Adding it leaves the nearest integer (ties to even) in the low bits of a float below 2^22.
constexpr float kRounder = 12582912.0F;

[[gnu::always_inline]] inline std::int32_t nearest(float v) {
  return std::bit_cast<std::int32_t>(v + kRounder) - std::bit_cast<std::int32_t>(kRounder);
}

[[gnu::always_inline]] inline std::uint32_t magnitude(float v) {
  return std::bit_cast<std::uint32_t>(v) & 0x7fffffffU;
}

MOESAIC_VECTOR_CLONES
std::uint32_t largest_bits(const float* x, std::size_t k) {
  std::uint32_t most = 0;
  for (std::size_t i = 0; i < k; ++i) most = std::max(most, magnitude(x[i]));
  return most;
}

MOESAIC_VECTOR_CLONES
void group_magnitudes(const float* x, std::size_t k, float* out) {
  for (std::size_t g = 0; g < k / kGroup; ++g) {
    std::uint32_t most = 0;
    for (std::size_t i = 0; i < kGroup; ++i) most = std::max(most, magnitude(x[g * kGroup + i]));
    out[g] = std::bit_cast<float>(most);
  }
}

/// Codes of all groups with the row's scale and their multipliers.
MOESAIC_VECTOR_CLONES
void encode_groups(const float* x, std::size_t k, float scale, const std::uint8_t* mults,
                   std::uint8_t* codes) {
  for (std::size_t g = 0; g < k / kGroup; ++g) {
    const float step = scale * static_cast<float>(mults[g]);
    // A scale may be so small that a step is denormal and its inverse infinite.
    float inverse = step > 0 ? 1.0F / step : 0.0F;
    if (!(inverse <= std::numeric_limits<float>::max())) inverse = 0;
    for (std::size_t i = 0; i < kGroup; ++i) {
      const float v = std::min(std::max(x[g * kGroup + i] * inverse, -8.0F), kMostCode);
      codes[g * kGroup + i] = static_cast<std::uint8_t>(nearest(v) + 8);
    }
  }
}

MOESAIC_VECTOR_CLONES
void encode_bytes(const float* x, std::size_t k, float inverse, std::int8_t* w8) {
  for (std::size_t i = 0; i < k; ++i) {
    const float v = std::min(std::max(x[i] * inverse, -127.0F), 127.0F);
    w8[i] = static_cast<std::int8_t>(nearest(v));
  }
}

/// The scale of a row whose largest multiplied code is `most_integer`; 0 if steps would be
/// denormal.
float row_scale_for(float most, float most_integer) {
  const float scale = most / most_integer;
  return scale >= std::numeric_limits<float>::min() ? scale : 0.0F;
}

void zero(std::size_t k, W4rRow& row) {
  row.scale = 0;
  std::fill_n(row.codes, k, std::uint8_t{8});
  std::fill_n(row.mults, k / kGroup, std::uint8_t{0});
}

}  // namespace

float largest_magnitude(const float* x, std::size_t k) {
  return std::bit_cast<float>(largest_bits(x, k));
}

void encode_w4r_absmax(const float* x, std::size_t k, W4rRow& row) {
  row.scale = row_scale_for(largest_magnitude(x, k), kMostMult * kMostCode);
  if (row.scale == 0) return zero(k, row);
  thread_local std::vector<float> most;
  most.resize(k / kGroup);
  group_magnitudes(x, k, most.data());
  for (std::size_t g = 0; g < k / kGroup; ++g) {
    const int covering = static_cast<int>(std::ceil(most[g] / (kMostCode * row.scale)));
    row.mults[g] = static_cast<std::uint8_t>(std::clamp(covering, most[g] > 0 ? 1 : 0, kMostMult));
  }
  encode_groups(x, k, row.scale, row.mults, row.codes);
}

void encode_w8r(const float* x, std::size_t k, float& scale, std::int8_t* w8) {
  scale = row_scale_for(largest_magnitude(x, k), 127);
  encode_bytes(x, k, scale > 0 ? 1.0F / scale : 0.0F, w8);
}

}  // namespace moesaic::quantize_detail
