#pragma once

#include <functional>
#include <vector>

#include "common/engine/make_engine.hpp"

namespace moesaic {

/// Sees each token of a request as it is drawn.
using OnToken = std::function<void(std::int32_t)>;

/// Runs one request on an engine of its own, sized for it, and waits: what `generate` does without
/// a server.
/// @return the drawn ids, a stop id included
/// @errors those of the engine
[[nodiscard]] Result<std::vector<std::int32_t>> run_request(const LoadedModel& model,
                                                            std::size_t routed_shards,
                                                            GenerateRequest request,
                                                            EngineSettings settings,
                                                            const OnToken& on_token = {});

}  // namespace moesaic
