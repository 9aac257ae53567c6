#include "common/engine/moe_metrics.hpp"

#include "common/engine/shard_imbalance.hpp"

namespace moesaic {

MoeMetrics::MoeMetrics(const ModelConfig& config)
    : layers_(config.layers),
      window_(config.layers),
      combine_(metrics::histogram("moesaic_moe_dispatch_seconds",
                                  {{"shard", "all"}, {"stage", "combine"}})),
      skew_(metrics::histogram("moesaic_engine_step_skew_seconds")) {}

MoeMetrics::Shard& MoeMetrics::shard(std::size_t number, const std::string& name) {
  if (number >= shards_.size()) shards_.resize(number + 1);
  auto& entry = shards_[number];
  if (!entry) {
    const auto stage = [&](const char* what) {
      return metrics::histogram("moesaic_moe_dispatch_seconds", {{"shard", name}, {"stage", what}});
    };
    entry.emplace(
        Shard{stage("send"),
              stage("receive"),
              metrics::counter("moesaic_moe_step_critical_shard_total", {{"shard", name}}),
              {},
              std::vector<std::uint64_t>(layers_)});
    entry->tokens.resize(layers_);
  }
  return *entry;
}

void MoeMetrics::sent(std::size_t number, const std::string& name, std::uint32_t layer,
                      std::size_t modality, std::size_t rows, std::uint64_t pairs, double seconds) {
  auto& entry = shard(number, name);
  entry.send.observe(seconds);
  entry.pairs[layer] += pairs;
  auto& tokens = entry.tokens[layer][modality];
  if (!tokens)
    tokens = metrics::counter(
        "moesaic_moe_shard_tokens_total",
        {{"shard", name},
         {"layer", std::to_string(layer)},
         {"modality", static_cast<Modality>(modality) == Modality::kText ? "text" : "vision"}});
  tokens->add(static_cast<double>(rows));
}

void MoeMetrics::answered(std::size_t number, double seconds) {
  shards_[number]->receive.observe(seconds);
}

void MoeMetrics::last(std::size_t number, double skew_seconds) {
  shards_[number]->critical.add();
  skew_.observe(skew_seconds);
}

void MoeMetrics::combined(std::uint32_t layer, std::span<const std::size_t> shards,
                          double seconds) {
  combine_.observe(seconds);
  auto& window = window_[layer];
  if (++window.visits < kWindow) return;
  window.visits = 0;
  work_.clear();
  for (const auto number : shards) {
    const bool known = number < shards_.size() && shards_[number];
    work_.push_back(known ? shards_[number]->pairs[layer] : 0);
    if (known) shards_[number]->pairs[layer] = 0;
  }
  if (!window.imbalance)
    window.imbalance =
        metrics::gauge("moesaic_moe_shard_imbalance_ratio", {{"layer", std::to_string(layer)}});
  window.imbalance->set(imbalance_ratio(work_));
}

void MoeMetrics::degraded(const StepContext& step, const std::string& reason) {
  if (degraded_step_ == step.number) return;
  degraded_step_ = step.number;
  metrics::counter("moesaic_moe_degraded_requests_total", {{"reason", reason}}).add(step.requests);
}

void MoeMetrics::dropped(std::uint64_t rows) {
  metrics::counter("moesaic_moe_dropped_tokens_total", {{"reason", "shard_unavailable"}})
      .add(static_cast<double>(rows));
}

}  // namespace moesaic
