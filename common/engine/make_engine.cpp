#include "common/engine/make_engine.hpp"

#include <algorithm>

namespace moesaic {
namespace {

/// Kept free for scratch and everything else.
constexpr std::uint64_t kReserve = std::uint64_t{1} << 30;

}  // namespace

Result<std::unique_ptr<KvCache>> make_kv_cache(const LoadedModel& model,
                                               const EngineSettings& settings) {
  const auto shape =
      DecoderStep::attention_shape(model.config, settings.kv_type.value_or(model.compute));
  const auto block_bytes = PagedKvCache::block_bytes(shape, model.config.layers);
  const auto context = settings.max_context > 0 ? settings.max_context : model.config.max_positions;
  const auto context_blocks = kv_blocks_for(context);
  auto bytes = settings.kv_bytes;
  if (bytes == 0) {
    const auto available = available_memory();
    bytes = available > kReserve ? available - kReserve : 0;
  }
  const auto blocks =
      std::min<std::uint64_t>(bytes / block_bytes, settings.limits.max_running * context_blocks);
  if (blocks < context_blocks)
    return fail(Errc::kOverloaded, "KV cache: " + std::to_string(bytes >> 20) + " MiB hold " +
                                       std::to_string(blocks * kPageTokens) +
                                       " tokens, one context of " + std::to_string(context) +
                                       " needs " +
                                       std::to_string(context_blocks * block_bytes >> 20) +
                                       " MiB; lower engine.max_context or raise kv.bytes");
  return std::unique_ptr<KvCache>(
      std::make_unique<PagedKvCache>(shape, model.config.layers, blocks));
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
