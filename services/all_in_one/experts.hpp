#pragma once

#include <memory>

#include "common/engine/expert_backend.hpp"
#include "common/engine/model_loader.hpp"
#include "common/engine/shard_service.hpp"
#include "common/transport/exchange.hpp"

namespace moesaic {

/// The expert back end of one process and the answering ends of its shards (none if the experts are
/// called directly).
struct ExpertWiring {
  std::unique_ptr<ExpertBackend> backend;
  std::vector<std::shared_ptr<transport::ServiceEnd>> links;  ///< one per table of the model
};

/// `routed`: every layer goes over a transport::Exchange to one shard per expert table, else the
/// single table is called.
ExpertWiring wire_experts(const LoadedModel& model, bool routed);

/// Starts the service thread of each link of the wiring, one kernel worker each; destruction stops
/// them.
std::vector<std::unique_ptr<ShardService>> start_shards(const LoadedModel& model,
                                                        const ExpertWiring& wiring);

/// "local" gives 0, "routed:N" gives N.
[[nodiscard]] Result<std::size_t> parse_experts(const std::string& text);

}  // namespace moesaic
