#pragma once

#include <memory>
#include <string>

#include "common/cluster/placement_table.hpp"
#include "common/engine/model_loader.hpp"

namespace moesaic {

using ExpertTablePtr = std::shared_ptr<const ExpertTable>;

/// True if the placement gives the expert to the shard of that name.
bool places(const cluster::PlacementTable& placement, const std::string& shard, std::uint32_t layer,
            Modality modality, std::uint32_t expert);

/// A table without experts, to begin with.
ExpertTablePtr no_experts(const OpenedModel& model);

/// `held` and the experts of one layer that the placement gives to `shard`. Those held already are
/// shared, not copied; only the tensors of the others are touched. Slow: reads and packs weights.
/// @errors those of `load_experts`; kShapeMismatch: a placement of another model
[[nodiscard]] Result<ExpertTablePtr> add_layer(const OpenedModel& model, const ExpertTablePtr& held,
                                               const cluster::PlacementTable& placement,
                                               const std::string& shard, std::uint32_t layer,
                                               const LoadProgress& progress = {});

/// `held` without the experts that the placement does not give to `shard`. Their memory is freed
/// with the last table that has them.
ExpertTablePtr without_others(const OpenedModel& model, const ExpertTablePtr& held,
                              const cluster::PlacementTable& placement, const std::string& shard);

}  // namespace moesaic
