#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "common/quantize/input_factor.hpp"
#include "common/quantize/lane_array.hpp"

namespace moesaic {

/// Error feedback for sixteen rows of the formats with one integer per weight: column after column
/// is rounded to the nearest code of what the errors so far ask for.
/// @source GPTQ (Frantar et al. 2022) in the form of input_factor.hpp; quantization.md 6.5

/// kW8r. @param x [padded K][lanes]   @return [padded K][lanes] integers -127..127
LaneArray feedback_w8r(const LaneArray& x, std::size_t padded,
                       const std::array<float, kLanes>& scale, const InputFactor& inputs,
                       const LaneKernels& kernels);

struct W4rLanes {
  LaneArray codes;  ///< [padded K][lanes] -8..7
  LaneArray mults;  ///< [padded K / 16][lanes] 0..15
};
/// kW4r. The multiplier of a group is the best for what its weights have become when the sweep
/// enters it, weighted by what cannot be repaired later.
W4rLanes feedback_w4r(const LaneArray& x, std::size_t padded,
                      const std::array<float, kLanes>& scale, const InputFactor& inputs,
                      const LaneKernels& kernels);

}  // namespace moesaic
