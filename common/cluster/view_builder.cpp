#include "common/cluster/view_builder.hpp"

#include <algorithm>
#include <set>

namespace moesaic::cluster {
namespace {

void add(std::string& text, const std::string& more) { text += (text.empty() ? "" : "; ") + more; }

std::size_t ready_members(const View& view, const std::string& role) {
  return static_cast<std::size_t>(
      std::count_if(view.members.begin(), view.members.end(), [&](const MemberState& state) {
        return state.member.role == role && state.alive && state.load.ready;
      }));
}

/// Experts of the table in force that nobody can compute now.
std::string missing_experts(const View& view, const PlacementSwitch& placement) {
  const auto& table = view.placement;
  std::size_t missing = 0;
  std::set<std::string> owners;
  for (std::size_t layer = 0; layer < table.layers; ++layer) {
    ShardSet able = 0;
    for (std::size_t s = 0; s < table.shards.size(); ++s) {
      const auto* state = view.find("expert-shard", table.shards[s]);
      if (state != nullptr && state->alive && placement.has(table.shards[s], layer))
        able |= ShardSet{1} << s;
    }
    for (std::size_t pool = 0; pool < kPools; ++pool) {
      for (std::size_t e = 0; e < table.experts[pool]; ++e) {
        const auto set = table.at(layer, pool, e);
        if (set == 0 || (set & able) != 0) continue;
        ++missing;
        for (std::size_t s = 0; s < table.shards.size(); ++s)
          if ((set >> s & 1) != 0) owners.insert(table.shards[s]);
      }
    }
  }
  if (missing == 0) return {};
  std::string text = "expert-shard (" + std::to_string(missing) + " experts of";
  for (const auto& name : owners) text += " " + name;
  return text + ")";
}

}  // namespace

View build_view(const ViewParts& parts) {
  View view;
  view.placement = parts.placement.in_force();
  for (const auto& [key, entry] : parts.members.all()) {
    auto& state = view.members.emplace_back(entry.state);
    if (key.first != "expert-shard") continue;
    const auto progress = parts.placement.progress(key.second);
    if (progress.loaded == progress.layers) continue;
    state.load.ready = false;
    state.load.detail = entry.failure.empty()
                            ? "has loaded " + std::to_string(progress.loaded) + " of " +
                                  std::to_string(progress.layers) + " layers"
                            : entry.failure;
  }
  if (view.placement.epoch == 0) {
    add(view.missing, parts.waiting_for.empty() ? "placement" : parts.waiting_for);
  } else if (const auto experts = missing_experts(view, parts.placement); !experts.empty()) {
    add(view.missing, experts);
  }
  if (ready_members(view, "decoder") == 0) add(view.missing, "decoder");
  if (parts.vision && ready_members(view, "vision-encoder") == 0)
    add(view.missing, "vision-encoder");
  view.ready = view.missing.empty();
  return view;
}

}  // namespace moesaic::cluster
