#pragma once

#include <memory>
#include <string>

#include "actors/contracts/actors.hpp"
#include "common/engine/shard_service.hpp"
#include "common/model/expert_table.hpp"

namespace moesaic {

/// What one shard is made of.
struct ExpertShardParts {
  std::string name;
  ModelConfig config;
  Compute compute = Compute::kBf16;
  std::shared_ptr<const ExpertTable> table;
  std::shared_ptr<ThreadPool> pool;       ///< for `run_atom`
  std::shared_ptr<ShardService> service;  ///< null: experts are called in this process
};

/// Life cycle and status of the experts; the service's thread does the work of serving.
struct ExpertShardState {
  static constexpr const char* name = "expert-shard";
  ExpertShardParts parts;
  ExpertScratch scratch;
  std::uint64_t batches = 0, rows = 0, failed = 0;  ///< of `run_atom`

  Result<ExpertOutputPtr> run(const ExpertBatch& batch);
  ExpertShardStatusPtr status() const;
};

ExpertShardActor::behavior_type expert_shard(
    ExpertShardActor::stateful_pointer<ExpertShardState> self, ExpertShardParts parts);

}  // namespace moesaic
