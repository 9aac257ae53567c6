#pragma once

#include <functional>

#include "common/http/router.hpp"

namespace moesaic {

/// Adds GET /metrics: everything this process counts, in Prometheus' text format.
/// @param ready told as moesaic_control_ready; called on the io thread, must not block
void add_metrics_route(HttpRouter& router, std::function<bool()> ready);

}  // namespace moesaic
