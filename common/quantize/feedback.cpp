#include "common/quantize/feedback.hpp"

#include <algorithm>

namespace moesaic {
namespace {

constexpr std::size_t kBlock = 64;
constexpr std::size_t kMultGroup = 16;

void set_inverse(const float* step, float* inverse) {
  for (std::size_t i = 0; i < kLanes; ++i) inverse[i] = step[i] > 0 ? 1 / step[i] : 0;
}

}  // namespace

LaneArray feedback_w8r(const LaneArray& x, std::size_t padded,
                       const std::array<float, kLanes>& scale, const InputFactor& inputs,
                       const LaneKernels& kernels) {
  LaneArray codes(padded);
  LaneArray errors(padded);
  LaneArray step(1);
  LaneArray inverse(1);
  std::copy(scale.begin(), scale.end(), step[0]);
  set_inverse(step[0], inverse[0]);
  for (std::size_t k = 0; k < padded; k += kBlock) {
    LaneArray carried(kBlock);
    kernels.accumulate(carried[0], inputs.row(0) + k, inputs.padded(), errors[0], k);
    kernels.sweep(x[k], carried[0], inputs.row(k) + k, inputs.padded(),
                  inputs.inverse_diagonal() + k, kBlock, kBlock, step[0], inverse[0], -127, 127,
                  codes[k], errors[k]);
  }
  return codes;
}

W4rLanes feedback_w4r(const LaneArray& x, std::size_t padded,
                      const std::array<float, kLanes>& scale, const InputFactor& inputs,
                      const LaneKernels& kernels) {
  W4rLanes out{LaneArray(padded), LaneArray(padded / kMultGroup)};
  LaneArray errors(padded);
  LaneArray row(1);
  LaneArray step(1);
  LaneArray inverse(1);
  std::copy(scale.begin(), scale.end(), row[0]);
  for (std::size_t k0 = 0; k0 < padded; k0 += kBlock) {
    LaneArray carried(kBlock);
    kernels.accumulate(carried[0], inputs.row(0) + k0, inputs.padded(), errors[0], k0);
    for (std::size_t g = 0; g < kBlock; g += kMultGroup) {
      const std::size_t k = k0 + g;
      float weight[kMultGroup];
      for (std::size_t i = 0; i < kMultGroup; ++i) weight[i] = inputs.row(k + i)[k + i];
      float* mult = out.mults[k / kMultGroup];
      kernels.best_mult(x[k], carried[g], inputs.inverse_diagonal() + k, weight, row[0], mult);
      for (std::size_t i = 0; i < kLanes; ++i) step[0][i] = row[0][i] * mult[i];
      set_inverse(step[0], inverse[0]);
      kernels.sweep(x[k], carried[g], inputs.row(k) + k, inputs.padded(),
                    inputs.inverse_diagonal() + k, kMultGroup, kBlock - g, step[0], inverse[0], -8,
                    7, out.codes[k], errors[k]);
    }
  }
  return out;
}

}  // namespace moesaic
