#pragma once

#include <cstddef>

#include "common/base/aligned_buffer.hpp"
#include "common/quantize/lane_kernels.hpp"

namespace moesaic {

/// [rows][16 lanes] f32, zeroed, as the lane kernels want them.
class LaneArray {
 public:
  LaneArray() = default;
  explicit LaneArray(std::size_t rows) : memory_(rows * kLanes * sizeof(float)) {}

  float* operator[](std::size_t row) { return memory_.as<float>().data() + row * kLanes; }
  const float* operator[](std::size_t row) const {
    return memory_.as<float>().data() + row * kLanes;
  }

 private:
  AlignedBuffer memory_;
};

}  // namespace moesaic
