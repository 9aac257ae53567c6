#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "common/engine/engine.hpp"
#include "common/engine/model_loader.hpp"

namespace moesaic {

/// Sizes of the KV cache and the scheduler of one decoder.
struct EngineSettings {
  std::optional<Compute> kv_type;  ///< of the cache; none: the model's mode
  std::uint64_t kv_bytes = 0;   ///< 0: what is available less 1 GiB, at most max_running contexts
  std::size_t max_context = 0;  ///< 0: the model's
  std::uint32_t drawable_ids = 0;  ///< 0: the whole vocabulary
  SchedulerLimits limits;
  MicroBatching micro;
  Tracer tracer{};
};

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
