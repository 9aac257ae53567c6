#pragma once

#include <prometheus/metric_family.h>

#include <string>
#include <vector>

namespace moesaic::metrics {

/// Appends copies of our families under the names that dashboards and autoscalers made for vLLM ask
/// for, labelled model_name and engine ("0") as there. Same meaning and unit, other buckets where
/// ours differ. Inside of common/metrics: not for others.
void append_vllm_aliases(const std::string& model_name,
                         std::vector<prometheus::MetricFamily>& families);

}  // namespace moesaic::metrics
