#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "services/all_in_one/metrics_text.hpp"

namespace moesaic {

/// The cluster at one moment, as its members tell it.
struct ClusterMoment {
  double seconds = 0;                                        ///< of a steady clock
  std::string view;                                          ///< JSON of GET /view
  std::map<std::string, std::vector<MetricSample>> metrics;  ///< by role/name; missing: no answer
};

/// Who has to be asked for metrics: role/name and URL of the admin server of everybody alive.
/// @errors kCorrupt: not a view
[[nodiscard]] Result<std::map<std::string, std::string>> admin_urls(const std::string& view);

/// Members, shards and wires as lines of text; rates are what has changed since `before`.
/// @errors kCorrupt: not a view
[[nodiscard]] Result<std::string> top_screen(const ClusterMoment& before, const ClusterMoment& now);

}  // namespace moesaic
