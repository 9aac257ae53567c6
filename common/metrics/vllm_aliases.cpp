#include "common/metrics/vllm_aliases.hpp"

#include <array>
#include <string_view>
#include <utility>

namespace moesaic::metrics {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kAliases = {{
    {"moesaic_engine_requests_running", "vllm:num_requests_running"},
    {"moesaic_engine_requests_waiting", "vllm:num_requests_waiting"},
    {"moesaic_kv_usage_ratio", "vllm:kv_cache_usage_perc"},
    {"moesaic_request_ttft_seconds", "vllm:time_to_first_token_seconds"},
    {"moesaic_request_inter_token_seconds", "vllm:inter_token_latency_seconds"},
    {"moesaic_request_e2e_seconds", "vllm:e2e_request_latency_seconds"},
    {"moesaic_request_prompt_tokens_total", "vllm:prompt_tokens_total"},
    {"moesaic_request_generated_tokens_total", "vllm:generation_tokens_total"},
}};

}  // namespace

void append_vllm_aliases(const std::string& model_name,
                         std::vector<prometheus::MetricFamily>& families) {
  const auto own = families.size();
  for (std::size_t i = 0; i < own; ++i) {
    for (const auto& [ours, theirs] : kAliases) {
      if (families[i].name != ours) continue;
      auto alias = families[i];
      alias.name = theirs;
      for (auto& metric : alias.metric) {
        metric.label.push_back({"model_name", model_name});
        metric.label.push_back({"engine", "0"});
      }
      families.push_back(std::move(alias));
    }
  }
}

}  // namespace moesaic::metrics
