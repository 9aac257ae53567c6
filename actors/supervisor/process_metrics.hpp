#pragma once

#include "common/config/settings.hpp"

namespace moesaic {

/// What every program exports besides its own: processor time, memory, energy; with
/// metrics.compat, the aliases for other servers' dashboards. Call once, before the service starts.
void start_process_metrics(const Settings& settings);

}  // namespace moesaic
