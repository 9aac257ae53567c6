#pragma once

#include <string>

namespace moesaic::metrics {

/// ops/metrics.md: every metric with its type, labels, meaning and buckets, made from `list()`.
std::string metrics_page();

}  // namespace moesaic::metrics
