#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace moesaic {

/// One value of Prometheus' text format.
struct MetricSample {
  std::string name;
  std::map<std::string, std::string> labels;
  double value = 0;
};

/// Reads the text format 0.0.4; lines that are not samples are left out.
std::vector<MetricSample> parse_metrics(std::string_view text);

}  // namespace moesaic
