#include "actors/supervisor/process_metrics.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>

#include "actors/supervisor/service_settings.hpp"
#include "common/base/version.hpp"
#include "common/config/keys.hpp"
#include "common/metrics/metrics.hpp"
#include "common/metrics/process.hpp"

namespace moesaic {
namespace {

bool has(const Settings& settings, std::string_view key) {
  const auto specs = settings.specs();
  return std::any_of(specs.begin(), specs.end(), [&](const auto& spec) { return spec.key == key; });
}

/// The label `node` of node.labels, else the machine's own name.
std::string node_of(const Settings& settings) {
  if (has(settings, "node.labels")) {
    for (const auto& item : settings.items("node.labels"))
      if (item.starts_with("node=")) return item.substr(5);
  }
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

}  // namespace

void start_process_metrics(const Settings& settings) {
  metrics::collect_process(node_of(settings), kVersion);
  if (has(settings, "metrics.compat") && settings.text("metrics.compat") == "vllm" &&
      has(settings, "model.name") && has(settings, "model.dir"))
    metrics::add_vllm_aliases(model_name(settings, model_directory(settings)));
}

}  // namespace moesaic
