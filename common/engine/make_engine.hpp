#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "common/engine/engine.hpp"
#include "common/engine/memory_plan.hpp"
#include "common/engine/model_loader.hpp"

namespace moesaic {

/// Sizes of the KV cache and the scheduler of one decoder.
struct EngineSettings {
  std::optional<Compute> kv_type;  ///< of the cache; none: the model's mode
  std::uint64_t kv_bytes = 0;      ///< 0: what the plan leaves, at most max_running contexts
  std::uint64_t beside_bytes = 0;  ///< memory of the process beside weights and decoder
  std::size_t max_context = 0;     ///< 0: the model's
  std::uint32_t drawable_ids = 0;  ///< 0: the whole vocabulary
  SchedulerLimits limits;
  MicroBatching micro;
  Tracer tracer{};
};

/// What the process of a decoder will need. Before its weights are loaded.
/// @param weights bytes of them
MemoryPlan plan_memory(const OpenedModel& model, const EngineSettings& settings,
                       std::uint64_t weights);
/// @errors kOverloaded: less than one full context fits beside the weights; text has the numbers
[[nodiscard]] Result<void> check_memory(const OpenedModel& model, const EngineSettings& settings,
                                        std::uint64_t weights);

/// A cache of the configured or affordable size.
/// @errors kOverloaded: less than one full context fits; the text has the numbers
[[nodiscard]] Result<std::unique_ptr<KvCache>> make_kv_cache(const LoadedModel& model,
                                                             const EngineSettings& settings);

/// An engine over the model's decoder weights.
[[nodiscard]] Result<std::unique_ptr<Engine>> make_engine(const LoadedModel& model,
                                                          const EngineSettings& settings,
                                                          std::unique_ptr<ExpertBackend> experts,
                                                          Engine::OnEvents on_events);

}  // namespace moesaic
