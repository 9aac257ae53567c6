#include "common/quantize/feedback.hpp"

#include <algorithm>
#include <cmath>

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

W4rLanes search_w4r(const LaneArray& x, std::size_t padded, const LaneKernels& kernels) {
  constexpr int kScales = 6;
  const std::size_t groups = padded / kMultGroup;
  W4rLanes best{{}, LaneArray(padded), LaneArray(groups)};
  std::array<float, kLanes> base{};
  for (std::size_t k = 0; k < padded; ++k)
    for (std::size_t i = 0; i < kLanes; ++i) base[i] = std::max(base[i], std::fabs(x[k][i]));

  std::array<double, kLanes> least{};
  LaneArray mults(groups);
  LaneArray scale(1);
  LaneArray error(1);
  const LaneArray nothing(kMultGroup);
  const std::array<float, kMultGroup> zeros{};
  std::array<float, kMultGroup> ones;
  ones.fill(1);
  for (int s = 0; s < kScales; ++s) {
    for (std::size_t i = 0; i < kLanes; ++i)
      scale[0][i] = base[i] / 105 * (1.06F - 0.06F * static_cast<float>(s));
    std::array<double, kLanes> total{};
    for (std::size_t g = 0; g < groups; ++g) {
      kernels.best_mult(x[g * kMultGroup], nothing[0], zeros.data(), ones.data(), scale[0],
                        mults[g], error[0]);
      for (std::size_t i = 0; i < kLanes; ++i) total[i] += double{error[0][i]};
    }
    for (std::size_t i = 0; i < kLanes; ++i) {
      if (s > 0 && !(total[i] < least[i])) continue;
      least[i] = total[i];
      best.scale[i] = scale[0][i];
      for (std::size_t g = 0; g < groups; ++g) best.mults[g][i] = mults[g][i];
    }
  }

  LaneArray step(1);
  LaneArray inverse(1);
  LaneArray carried(kMultGroup);
  LaneArray errors(kMultGroup);
  for (std::size_t g = 0; g < groups; ++g) {
    for (std::size_t i = 0; i < kLanes; ++i) step[0][i] = best.scale[i] * best.mults[g][i];
    set_inverse(step[0], inverse[0]);
    for (std::size_t k = 0; k < kMultGroup; ++k)
      kernels.sweep(x[g * kMultGroup + k], carried[k], nullptr, 0, zeros.data(), 1, 1, step[0],
                    inverse[0], -8, 7, best.codes[g * kMultGroup + k], errors[k]);
  }
  return best;
}

void feedback_w4r(const LaneArray& x, std::size_t padded, const InputFactor& inputs,
                  const LaneKernels& kernels, W4rLanes& out) {
  LaneArray errors(padded);
  LaneArray row(1);
  LaneArray step(1);
  LaneArray inverse(1);
  std::copy(out.scale.begin(), out.scale.end(), row[0]);
  LaneArray unused(1);
  for (std::size_t k0 = 0; k0 < padded; k0 += kBlock) {
    LaneArray carried(kBlock);
    kernels.accumulate(carried[0], inputs.row(0) + k0, inputs.padded(), errors[0], k0);
    for (std::size_t g = 0; g < kBlock; g += kMultGroup) {
      const std::size_t k = k0 + g;
      float weight[kMultGroup];
      for (std::size_t i = 0; i < kMultGroup; ++i) weight[i] = inputs.row(k + i)[k + i];
      float* mult = out.mults[k / kMultGroup];
      kernels.best_mult(x[k], carried[g], inputs.inverse_diagonal() + k, weight, row[0], mult,
                        unused[0]);
      for (std::size_t i = 0; i < kLanes; ++i) step[0][i] = row[0][i] * mult[i];
      set_inverse(step[0], inverse[0]);
      kernels.sweep(x[k], carried[g], inputs.row(k) + k, inputs.padded(),
                    inputs.inverse_diagonal() + k, kMultGroup, kBlock - g, step[0], inverse[0], -8,
                    7, out.codes[k], errors[k]);
    }
  }
}

}  // namespace moesaic
