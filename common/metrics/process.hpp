#pragma once

#include <string>

namespace moesaic::metrics {

/// From now on each exposition carries moesaic_process_*, moesaic_moe_page_faults_total and, where
/// the kernel lets this user read RAPL counters, moesaic_engine_energy_joules_total{node}. Call
/// once, from main.
void collect_process(const std::string& node, const std::string& version);

}  // namespace moesaic::metrics
