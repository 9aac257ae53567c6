#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "common/quantize/input_factor.hpp"
#include "common/quantize/lane_array.hpp"

namespace moesaic {

/// Sixteen rows of kW4r.
struct W4rLanes {
  std::array<float, kLanes> scale{};
  LaneArray codes;  ///< [padded K][lanes] -8..7
  LaneArray mults;  ///< [padded K / 16][lanes] 0..15
};

/// Least squared error: six row scales, 1.06 down to 0.76 of absmax / 105, and for each group of 16
/// the best of all multipliers.
/// @param x [padded K][lanes], as PanelRows::read_half gives them
/// @source kernels.md 3.1
W4rLanes search_w4r(const LaneArray& x, std::size_t padded, const LaneKernels& kernels);

/// Sixteen rows of kW8r.
struct W8rLanes {
  std::array<float, kLanes> scale{};
  LaneArray codes;  ///< [padded K][lanes] integers -127..127
};

// Error feedback: column after column is rounded to the nearest code of what the errors so far ask
// for. Source: GPTQ (Frantar et al. 2022) in the form of input_factor.hpp; quantization.md 6.5.
// Several groups of sixteen rows go through the factor together, so that memory is read once for
// them; none looks at another.
// @param x one per element of `out`: [padded K][lanes]

/// Codes for the scales in `out`.
void feedback_w8r(std::span<const LaneArray* const> x, std::size_t padded,
                  const InputFactor& inputs, const LaneKernels& kernels, std::span<W8rLanes> out);

/// Codes and multipliers for the row scales in `out`. The multiplier of a group is the best for
/// what its weights have become when the sweep enters it, weighted by what cannot be repaired
/// later.
void feedback_w4r(std::span<const LaneArray* const> x, std::size_t padded,
                  const InputFactor& inputs, const LaneKernels& kernels, std::span<W4rLanes> out);

}  // namespace moesaic
