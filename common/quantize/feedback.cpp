#include "common/quantize/feedback.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace moesaic {
namespace {

constexpr std::size_t kBlock = InputFactor::kStride;
constexpr std::size_t kMultGroup = 16;

void set_inverse(const float* step, float* inverse) {
  for (std::size_t i = 0; i < kLanes; ++i) inverse[i] = step[i] > 0 ? 1 / step[i] : 0;
}

}  // namespace

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

void feedback_w8r(std::span<const LaneArray* const> x, std::size_t padded,
                  const InputFactor& inputs, const LaneKernels& kernels, std::span<W8rLanes> out) {
  std::vector<LaneArray> errors;
  for (auto& lanes : out) {
    lanes.codes = LaneArray(padded);
    errors.emplace_back(padded);
  }
  LaneArray step(1);
  LaneArray inverse(1);
  for (std::size_t k = 0; k < padded; k += kBlock)
    for (std::size_t r = 0; r < out.size(); ++r) {
      LaneArray carried(kBlock);
      kernels.accumulate(carried[0], inputs.at(0, k), InputFactor::kStride, errors[r][0], k);
      std::copy(out[r].scale.begin(), out[r].scale.end(), step[0]);
      set_inverse(step[0], inverse[0]);
      kernels.sweep((*x[r])[k], carried[0], inputs.at(k, k), InputFactor::kStride,
                    inputs.inverse_diagonal() + k, kBlock, kBlock, step[0], inverse[0], -127, 127,
                    out[r].codes[k], errors[r][k]);
    }
}

void feedback_w4r(std::span<const LaneArray* const> x, std::size_t padded,
                  const InputFactor& inputs, const LaneKernels& kernels, std::span<W4rLanes> out) {
  std::vector<LaneArray> errors;
  for (std::size_t r = 0; r < out.size(); ++r) errors.emplace_back(padded);
  LaneArray row(1);
  LaneArray step(1);
  LaneArray inverse(1);
  LaneArray unused(1);
  for (std::size_t k0 = 0; k0 < padded; k0 += kBlock)
    for (std::size_t r = 0; r < out.size(); ++r) {
      LaneArray carried(kBlock);
      kernels.accumulate(carried[0], inputs.at(0, k0), InputFactor::kStride, errors[r][0], k0);
      std::copy(out[r].scale.begin(), out[r].scale.end(), row[0]);
      for (std::size_t g = 0; g < kBlock; g += kMultGroup) {
        const std::size_t k = k0 + g;
        float weight[kMultGroup];
        for (std::size_t i = 0; i < kMultGroup; ++i) weight[i] = *inputs.at(k + i, k + i);
        float* mult = out[r].mults[k / kMultGroup];
        kernels.best_mult((*x[r])[k], carried[g], inputs.inverse_diagonal() + k, weight, row[0],
                          mult, unused[0]);
        for (std::size_t i = 0; i < kLanes; ++i) step[0][i] = row[0][i] * mult[i];
        set_inverse(step[0], inverse[0]);
        kernels.sweep((*x[r])[k], carried[g], inputs.at(k, k), InputFactor::kStride,
                      inputs.inverse_diagonal() + k, kMultGroup, kBlock - g, step[0], inverse[0],
                      -8, 7, out[r].codes[k], errors[r][k]);
      }
    }
}

}  // namespace moesaic
