#pragma once

#include <array>

#include "common/cluster/placement_table.hpp"
#include "common/kernels/compute.hpp"
#include "common/kernels/weight_format.hpp"
#include "common/model/config.hpp"

namespace moesaic {

/// What of a model there is to place, its experts stored in `formats` (text, vision). A checkpoint
/// that stores f32 takes twice the bf16 bytes in Compute::kF32.
cluster::ExpertGeometry expert_geometry(const ModelConfig& config, Compute compute,
                                        const std::array<WeightFormat, kModalities>& formats = {
                                            WeightFormat::kBf16, WeightFormat::kBf16});

}  // namespace moesaic
