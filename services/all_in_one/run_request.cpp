#include "services/all_in_one/run_request.hpp"

#include <future>

#include "services/all_in_one/experts.hpp"

namespace moesaic {

Result<std::vector<std::int32_t>> run_request(const LoadedModel& model, std::size_t routed_shards,
                                              GenerateRequest request, EngineSettings settings,
                                              const OnToken& on_token) {
  MOESAIC_TRY(auto wiring, wire_experts(model, routed_shards > 0));

  const std::size_t tokens = request.prompt.size() + request.max_tokens;
  if (tokens > model.config.max_positions)
    return fail(Errc::kContextLength, "prompt of " + std::to_string(request.prompt.size()) +
                                          " tokens and " + std::to_string(request.max_tokens) +
                                          " to generate, the context holds " +
                                          std::to_string(model.config.max_positions));
  settings.max_context = tokens;
  settings.limits.max_running = 1;
  std::vector<std::int32_t> ids;
  std::promise<std::optional<Error>> finished;
  const auto on_events = [&](const TokenEvents& events) {
    for (const auto& event : events) {
      for (const auto id : event.tokens) {
        ids.push_back(id);
        if (on_token) on_token(id);
      }
      if (event.finished) finished.set_value(event.error);
    }
  };
  MOESAIC_TRY(const auto engine,
              make_engine(model, settings, std::move(wiring.backend), on_events));
  MOESAIC_CHECK(engine->submit(std::make_shared<const GenerateRequest>(std::move(request))));
  if (auto error = finished.get_future().get()) return tl::make_unexpected(std::move(*error));
  return ids;
}

}  // namespace moesaic
