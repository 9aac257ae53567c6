#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "common/kernels/cpu/linear_level.hpp"
#include "common/kernels/integer_weight.hpp"

// The integer products written plainly, and kept for ever: every other level must give these bits.

namespace moesaic::cpu {
namespace {

float quantize(const float* x, std::size_t cols, std::size_t block, std::int8_t* q,
               std::size_t stride) {
  std::uint32_t most = 0;  // as bits: a NaN is above infinity
  for (std::size_t k = 0; k < cols; ++k)
    most = std::max(most, std::bit_cast<std::uint32_t>(x[k]) & 0x7fffffffU);
  const BlockScale scale = block_scale(most);
  const std::size_t some = scale.inverse > 0 ? cols : 0;
  for (std::size_t k = 0; k < block; ++k) {
    const float v = k < some ? std::nearbyint(x[k] * scale.inverse) : 0.0F;
    q[k / 64 * stride + k % 64] = static_cast<std::int8_t>(v);
  }
  return scale.scale;
}

/// The weights of one panel and block as integers: w[k][32].
void decode(const PackedMatrix& w, std::size_t panel, std::size_t k0, std::size_t cols,
            std::int16_t* out) {
  for (std::size_t k = 0; k < cols; ++k)
    for (std::size_t row = 0; row < 32; ++row)
      out[k * 32 + row] = static_cast<std::int16_t>(integer_weight(w, panel, row, k0 + k));
}

void run(const IntegerJob& job) {
  const PackedMatrix& w = *job.w;
  const RowLayout& layout = *job.layout;
  const std::size_t block = layout.block, rows = job.last_row - job.first_row;
  const std::size_t ld = layout.padded_rows();
  const float* scales = layout.scales(job.x);
  auto* const weights = reinterpret_cast<std::int16_t*>(
      integer_scratch(block * 32 * sizeof(std::int16_t) + rows * 32 * sizeof(float)));
  auto* const c = reinterpret_cast<float*>(weights + block * 32);
  for (std::size_t p = job.first_panel; p < job.last_panel; ++p) {
    for (std::size_t b = 0; b < layout.padded_cols / block; ++b) {
      decode(w, p, b * block, block, weights);
      for (std::size_t r = 0; r < rows; ++r) {
        std::int32_t sums[32] = {};
        for (std::size_t k = 0; k < block; ++k) {
          std::int8_t q;
          std::memcpy(&q, job.x + layout.value_offset(job.first_row + r, b * block + k), 1);
          for (std::size_t n = 0; n < 32; ++n) sums[n] += weights[k * 32 + n] * q;
        }
        const float s = scales[b * ld + job.first_row + r];
        for (std::size_t n = 0; n < 32; ++n) {
          float& acc = c[r * 32 + n];
          const auto sum = static_cast<float>(sums[n]);
          acc = b == 0 ? sum * s : std::fma(sum, s, acc);
        }
      }
    }
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t n = 0; n < 32; ++n) c[r * 32 + n] *= row_scale(w, p, n);
    job.sink->take(p, job.first_row, rows, c, 32);
  }
}

}  // namespace

const IntegerLevel kIntegerScalar = {quantize, run};

}  // namespace moesaic::cpu
