#include "common/metrics/metrics_page.hpp"

#include <sstream>

#include "common/metrics/metrics.hpp"

namespace moesaic::metrics {
namespace {

constexpr std::string_view kTypes[] = {"counter", "gauge", "histogram"};

std::string joined(const std::vector<std::string_view>& names) {
  std::string text;
  for (const auto name : names) text += (text.empty() ? "`" : ", `") + std::string(name) + "`";
  return text;
}

}  // namespace

std::string metrics_page() {
  std::ostringstream out;
  out << "# Metrics\n\n"
         "What the services tell on `/metrics`, in Prometheus' text format. This page is printed "
         "by "
         "`moesaic doctor --metrics`; a test compares the two.\n"
         "Each service exports those that concern it; a series appears with its first value.\n"
         "`metrics.compat: vllm` adds aliases under the names that dashboards made for vLLM ask "
         "for.\n\n"
         "| metric | type | labels | meaning |\n|---|---|---|---|\n";
  for (const auto& spec : list())
    out << "| `" << spec.name << "` | " << kTypes[static_cast<std::size_t>(spec.type)] << " | "
        << joined(spec.labels) << " | " << spec.help << " |\n";
  out << "\n## Buckets\n\nUpper bounds of the histograms, in the unit of the name.\n\n"
         "| metric | upper bounds |\n|---|---|\n";
  for (const auto& spec : list()) {
    if (spec.type != Spec::Type::kHistogram) continue;
    out << "| `" << spec.name << "` |";
    for (const auto bound : spec.buckets) out << ' ' << bound;
    out << " |\n";
  }
  return out.str();
}

}  // namespace moesaic::metrics
