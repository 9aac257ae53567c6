#include "common/engine/make_engine.hpp"

#include "common/base/available_memory.hpp"

namespace moesaic {
namespace {

MemorySettings memory_settings(const EngineSettings& settings, Compute compute) {
  return {settings.kv_type.value_or(compute), settings.kv_bytes, settings.max_context,
          settings.limits, settings.beside_bytes};
}

}  // namespace

MemoryPlan plan_memory(const OpenedModel& model, const EngineSettings& settings,
                       std::uint64_t weights) {
  return plan_memory(model.config, memory_settings(settings, model.compute), weights,
                     available_memory());
}

Result<void> check_memory(const OpenedModel& model, const EngineSettings& settings,
                          std::uint64_t weights) {
  return check_plan(plan_memory(model, settings, weights),
                    memory_settings(settings, model.compute));
}

Result<std::unique_ptr<KvCache>> make_kv_cache(const LoadedModel& model,
                                               const EngineSettings& settings) {
  const auto memory = memory_settings(settings, model.compute);
  // Weights that were copied are not available any more; those that are mapped still count so.
  const auto plan = plan_memory(model.config, memory, model.mapped_bytes, available_memory());
  MOESAIC_CHECK(check_plan(plan, memory));
  return std::unique_ptr<KvCache>(
      std::make_unique<PagedKvCache>(DecoderStep::attention_shape(model.config, memory.kv_type),
                                     model.config.layers, plan.kv_blocks));
}

Result<std::unique_ptr<Engine>> make_engine(const LoadedModel& model,
                                            const EngineSettings& settings,
                                            std::unique_ptr<ExpertBackend> experts,
                                            Engine::OnEvents on_events) {
  MOESAIC_TRY(auto kv, make_kv_cache(model, settings));
  const EngineOptions options{settings.limits, settings.max_context, settings.drawable_ids,
                              settings.micro, settings.tracer};
  return std::make_unique<Engine>(model.config, options, model.decoder, model.compute,
                                  std::move(kv), std::move(experts), model.pool,
                                  std::move(on_events));
}

}  // namespace moesaic
