#include "services/all_in_one/metrics_text.hpp"

#include <cstdlib>
#include <optional>

namespace moesaic {
namespace {

/// `name{label="value",...} number`, or `name number`.
std::optional<MetricSample> parse_line(std::string_view line) {
  MetricSample sample;
  const auto end = line.find_first_of("{ ");
  if (end == 0 || end == line.npos) return std::nullopt;
  sample.name = line.substr(0, end);
  std::size_t at = end;
  if (line[at] == '{') {
    ++at;
    while (at < line.size() && line[at] != '}') {
      const auto equals = line.find("=\"", at);
      if (equals == line.npos) return std::nullopt;
      auto& value = sample.labels[std::string(line.substr(at, equals - at))];
      for (at = equals + 2; at < line.size() && line[at] != '"'; ++at) {
        if (line[at] == '\\' && at + 1 < line.size()) ++at;
        value += line[at];
      }
      if (++at < line.size() && line[at] == ',') ++at;
    }
    ++at;
  }
  if (at >= line.size() || line[at] != ' ') return std::nullopt;
  const std::string number(line.substr(at + 1));
  char* stop = nullptr;
  sample.value = std::strtod(number.c_str(), &stop);
  if (stop == number.c_str()) return std::nullopt;
  return sample;
}

}  // namespace

std::vector<MetricSample> parse_metrics(std::string_view text) {
  std::vector<MetricSample> samples;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    const auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.front() == '#') continue;
    if (auto sample = parse_line(line)) samples.push_back(std::move(*sample));
  }
  return samples;
}

}  // namespace moesaic
