#pragma once

#include <memory>
#include <vector>

#include "common/engine/expert_backend.hpp"
#include "common/engine/model_loader.hpp"
#include "common/engine/shard_service.hpp"

namespace moesaic {

/// The expert back end of one process and its shards (none if the experts are called directly),
/// which must not outlive `LoadedModel::pool`.
struct ExpertWiring {
  std::vector<std::shared_ptr<ShardService>> shards;  ///< one per table of the model
  std::unique_ptr<ExpertBackend> backend;
};

/// `routed`: every layer goes through the in-process carrier to a shard service per expert table,
/// one kernel worker each; else the single table is called.
/// @errors those of `ShardService::start`
[[nodiscard]] Result<ExpertWiring> wire_experts(const LoadedModel& model, bool routed);

/// "local" gives 0, "routed:N" gives N.
[[nodiscard]] Result<std::size_t> parse_experts(const std::string& text);

}  // namespace moesaic
