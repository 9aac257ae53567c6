#include "common/cluster/placement_switch.hpp"

#include <algorithm>
#include <cassert>
#include <optional>
#include <set>

namespace moesaic::cluster {
namespace {

std::optional<std::size_t> position(const PlacementTable& table, const std::string& shard) {
  const auto at = std::find(table.shards.begin(), table.shards.end(), shard);
  if (at == table.shards.end()) return std::nullopt;
  return static_cast<std::size_t>(at - table.shards.begin());
}

std::size_t experts_of_layer(const PlacementTable& table) {
  return table.experts[0] + table.experts[1];
}

/// Adds the shard's part of `table` to a table that has it alone.
void add_part(PlacementTable& part, const PlacementTable& table, const std::string& shard) {
  const auto at = position(table, shard);
  if (table.epoch == 0 || !at) return;
  part.shards = {shard};
  part.layers = table.layers;
  part.experts = table.experts;
  part.owners.resize(table.owners.size());
  for (std::size_t i = 0; i < table.owners.size(); ++i)
    part.owners[i] |= table.owners[i] >> *at & 1;
}

}  // namespace

Result<void> PlacementSwitch::begin(PlacementTable next) {
  assert(state_ == State::kSteady && next.epoch > in_force_.epoch);
  std::set<std::string> names(before_.shards.begin(), before_.shards.end());
  names.insert(next.shards.begin(), next.shards.end());
  if (names.size() > kMaxShards)
    return fail(Errc::kTooLarge, "placement: the shards before and after the change are " +
                                     std::to_string(names.size()) + " together, at most " +
                                     std::to_string(kMaxShards));
  next_ = std::move(next);
  switched_.assign(next_.layers, false);
  for (auto& [name, held] : held_) held.after.assign(next_.layers, false);
  state_ = State::kSwitching;
  return {};
}

bool PlacementSwitch::moe_layer(const PlacementTable& table, std::size_t layer) const {
  const auto first =
      table.owners.begin() + static_cast<std::ptrdiff_t>(layer * experts_of_layer(table));
  return std::any_of(first, first + static_cast<std::ptrdiff_t>(experts_of_layer(table)),
                     [](ShardSet owners) { return owners != 0; });
}

bool PlacementSwitch::owner(const PlacementTable& table, const std::string& shard,
                            std::size_t layer) const {
  const auto at = position(table, shard);
  if (!at || layer >= table.layers) return false;
  const auto first =
      table.owners.begin() + static_cast<std::ptrdiff_t>(layer * experts_of_layer(table));
  return std::any_of(first, first + static_cast<std::ptrdiff_t>(experts_of_layer(table)),
                     [&](ShardSet owners) { return (owners >> *at & 1) != 0; });
}

bool PlacementSwitch::advance(const Alive& alive) {
  if (state_ != State::kSwitching) return false;
  std::vector<bool> ready(next_.layers, true);
  for (const auto& shard : next_.shards) {
    const auto held = held_.find(shard);
    const bool here = held != held_.end() && alive(shard);
    for (std::size_t layer = 0; layer < next_.layers; ++layer)
      if (owner(next_, shard, layer) && !(here && held->second.after[layer])) ready[layer] = false;
  }
  const bool all = std::all_of(ready.begin(), ready.end(), [](bool r) { return r; });
  if (before_.epoch == 0 && !all) return false;
  bool changed = false;
  for (std::size_t layer = 0; layer < next_.layers; ++layer) {
    if (!ready[layer] || switched_[layer]) continue;
    switched_[layer] = true;
    changed = changed || moe_layer(next_, layer);
  }
  if (std::all_of(switched_.begin(), switched_.end(), [](bool s) { return s; })) {
    before_ = in_force_ = std::move(next_);
    next_ = {};
    for (auto& [name, held] : held_) held.before = std::move(held.after);
    state_ = State::kReleasing;
    return true;
  }
  if (changed) mix();
  return changed;
}

void PlacementSwitch::mix() {
  in_force_ = before_;
  in_force_.epoch = next_.epoch;
  std::vector<std::size_t> bit;  // of each shard of next_
  for (const auto& shard : next_.shards) {
    const auto at = position(in_force_, shard);
    bit.push_back(at.value_or(in_force_.shards.size()));
    if (!at) in_force_.shards.push_back(shard);
  }
  const auto width = experts_of_layer(next_);
  for (std::size_t layer = 0; layer < next_.layers; ++layer) {
    if (!switched_[layer]) continue;
    for (auto i = layer * width; i < (layer + 1) * width; ++i) {
      in_force_.owners[i] = 0;
      for (std::size_t s = 0; s < bit.size(); ++s)
        in_force_.owners[i] |= (next_.owners[i] >> s & 1) << bit[s];
    }
  }
}

void PlacementSwitch::abort() {
  assert(state_ == State::kSwitching);
  if (in_force_.epoch == next_.epoch) before_.epoch = next_.epoch + 1;
  in_force_ = before_;
  next_ = {};
  for (auto& [name, held] : held_) held.after.clear();
  state_ = State::kReleasing;
}

PlacementTable PlacementSwitch::wanted(const std::string& shard) const {
  PlacementTable part;
  add_part(part, before_, shard);
  part.epoch = part.shards.empty() ? 0 : before_.epoch;
  // A shard refuses epochs older than the first it is told, so one that comes back empty first
  // takes its place under the epoch that is asked with now.
  const bool first_things_first =
      state_ == State::kSwitching && in_force_.epoch == before_.epoch && !holds_before(shard);
  if (state_ != State::kSwitching || first_things_first) return part;
  add_part(part, next_, shard);
  part.epoch = part.shards.empty() ? 0 : next_.epoch;
  return part;
}

bool PlacementSwitch::holds_before(const std::string& shard) const {
  const auto held = held_.find(shard);
  for (std::size_t layer = 0; layer < before_.layers; ++layer)
    if (owner(before_, shard, layer) && (held == held_.end() || !held->second.before[layer]))
      return false;
  return true;
}

PlacementTable PlacementSwitch::kept(const std::string& shard) const {
  auto part = in_force_;
  std::fill(part.owners.begin(), part.owners.end(), 0);
  part.shards = {shard};
  add_part(part, in_force_, shard);
  return part;
}

void PlacementSwitch::prepared(const std::string& shard, const Prepared& prepared) {
  const bool of_next = state_ == State::kSwitching && prepared.epoch == next_.epoch;
  if (!of_next && (prepared.epoch == 0 || prepared.epoch != before_.epoch)) return;
  auto& held = held_[shard];
  const auto layers = std::max(before_.layers, next_.layers);
  held.before.resize(layers);
  held.after.resize(layers);
  for (const auto layer : prepared.layers) {
    if (layer >= layers) continue;
    held.before[layer] = true;  // what was asked for under the next epoch includes what was before
    if (of_next && layer < next_.layers) held.after[layer] = true;
  }
}

bool PlacementSwitch::complete(const std::string& shard) const {
  if (!holds_before(shard)) return false;
  const auto held = held_.find(shard);
  for (std::size_t layer = 0; layer < next_.layers; ++layer)
    if (owner(next_, shard, layer) && (held == held_.end() || !held->second.after[layer]))
      return false;
  return true;
}

bool PlacementSwitch::has(const std::string& shard, std::size_t layer) const {
  const auto held = held_.find(shard);
  if (held == held_.end()) return false;
  const bool after = state_ == State::kSwitching && switched_[layer];
  const auto& layers = after ? held->second.after : held->second.before;
  return layer < layers.size() && layers[layer];
}

PlacementSwitch::Progress PlacementSwitch::progress(const std::string& shard) const {
  Progress progress;
  for (std::size_t layer = 0; layer < in_force_.layers; ++layer) {
    if (!owner(in_force_, shard, layer)) continue;
    ++progress.layers;
    if (has(shard, layer)) ++progress.loaded;
  }
  return progress;
}

PlacementSwitch::Progress PlacementSwitch::switched() const {
  Progress progress;
  for (std::size_t layer = 0; layer < next_.layers; ++layer) {
    if (!moe_layer(next_, layer)) continue;
    ++progress.layers;
    if (switched_[layer]) ++progress.loaded;
  }
  return progress;
}

}  // namespace moesaic::cluster
