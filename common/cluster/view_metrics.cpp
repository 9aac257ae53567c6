#include "common/cluster/view_metrics.hpp"

#include <string_view>
#include <utility>

namespace moesaic::cluster {
namespace {

using Numbers = std::vector<std::size_t>;

constexpr std::string_view kPoolNames[kPools] = {"text", "vision"};

/// "0-31,40"
std::string text_of(const Numbers& ascending) {
  std::string text;
  for (std::size_t i = 0; i < ascending.size();) {
    std::size_t end = i;
    while (end + 1 < ascending.size() && ascending[end + 1] == ascending[end] + 1) ++end;
    text += (text.empty() ? "" : ",") + std::to_string(ascending[i]);
    if (end > i) text += "-" + std::to_string(ascending[end]);
    i = end + 1;
  }
  return text;
}

/// Experts with the same owners, in layers where they are the same.
struct Range {
  std::size_t pool = 0;
  Numbers experts;
  ShardSet owners = 0;
  auto operator<=>(const Range&) const = default;
};

std::map<Range, Numbers> ranges_of(const PlacementTable& table) {
  std::map<Range, Numbers> layers;
  for (std::size_t layer = 0; layer < table.layers; ++layer) {
    for (std::size_t pool = 0; pool < kPools; ++pool) {
      std::map<ShardSet, Numbers> experts;
      for (std::size_t e = 0; e < table.experts[pool]; ++e)
        if (const auto owners = table.at(layer, pool, e)) experts[owners].push_back(e);
      for (auto& [owners, held] : experts) layers[{pool, std::move(held), owners}].push_back(layer);
    }
  }
  return layers;
}

std::string label(const Member& member, const std::string& name) {
  const auto it = member.labels.find(name);
  return it == member.labels.end() ? "" : it->second;
}

/// Sets these series, and hides those of before that are not among them.
void replace(std::string_view name, const std::map<metrics::Labels, double>& values,
             std::set<metrics::Labels>& told) {
  for (const auto& [labels, value] : values) {
    metrics::gauge(name, labels).set(value);
    told.erase(labels);
  }
  for (const auto& gone : told) metrics::remove(name, gone);
  told.clear();
  for (const auto& [labels, value] : values) told.insert(labels);
}

}  // namespace

void ViewMetrics::publish(const View& view) {
  publish_generation(view.placement);
  publish_members(view);
  publish_placement(view);
}

void ViewMetrics::publish_members(const View& view) {
  std::map<metrics::Labels, double> alive;
  std::map<metrics::Labels, double> roles;
  for (const auto& state : view.members) {
    alive[{{"instance", state.member.name}}] = state.alive ? 1 : 0;
    roles[{{"instance", state.member.name}, {"role", state.member.role}}] = 1;
  }
  replace("moesaic_control_instance_alive", alive, alive_);
  replace("moesaic_control_role", roles, roles_);
}

void ViewMetrics::publish_placement(const View& view) {
  const auto& table = view.placement;
  std::map<metrics::Labels, double> placed;
  std::map<metrics::Labels, double> replicas;
  for (const auto& [range, layers] : ranges_of(table)) {
    const auto name = std::string(kPoolNames[range.pool]) + " " + text_of(range.experts) +
                      ", layers " + text_of(layers);
    auto& count = replicas[{{"expert_range", name}}];
    for (std::size_t shard = 0; shard < table.shards.size(); ++shard) {
      if (!(range.owners >> shard & 1U)) continue;
      const auto* state = view.find("expert-shard", table.shards[shard]);
      const auto member = state ? state->member : Member{};
      placed[{{"expert_range", name},
              {"shard", table.shards[shard]},
              {"node", label(member, "node")},
              {"tier", label(member, "tier")}}] = 1;
      if (state && state->alive) ++count;
    }
  }
  replace("moesaic_placement_info", placed, placed_);
  replace("moesaic_placement_expert_replicas", replicas, replicas_);
}

void publish_generation(const PlacementTable& placement) {
  metrics::gauge("moesaic_placement_generation").set(placement.epoch);
}

}  // namespace moesaic::cluster
