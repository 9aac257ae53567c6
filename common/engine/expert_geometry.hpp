#pragma once

#include "common/cluster/placement_table.hpp"
#include "common/kernels/compute.hpp"
#include "common/model/config.hpp"

namespace moesaic {

/// What of a model there is to place. Expert bytes are those of packed bf16 weights, as published;
/// a checkpoint that stores f32 takes twice that in Compute::kF32.
cluster::ExpertGeometry expert_geometry(const ModelConfig& config, Compute compute);

}  // namespace moesaic
