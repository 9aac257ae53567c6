#include "common/cluster/placement_resolve.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>
#include <set>

namespace moesaic::cluster {
namespace {

constexpr std::array<const char*, kPools> kPoolNames = {"text", "vision"};

std::string at_line(const PlacementFile& file, int line) {
  return file.name + ":" + std::to_string(line) + ": ";
}

std::string labels_text(const std::map<std::string, std::string>& labels) {
  std::string text;
  for (const auto& [label, value] : labels)
    text += (text.empty() ? "{" : ", ") + label + ": " + value;
  return text.empty() ? "{}" : text + "}";
}

/// Experts as a table for one holder: [PlacementTable::index] counts how often each was given.
struct Grant {
  explicit Grant(const ExpertGeometry& geometry)
      : line(geometry.layer_is_moe.size() * (geometry.experts[0] + geometry.experts[1])) {}
  std::vector<int> line;  ///< of the file that gives it; 0: not given
};

std::size_t index(const ExpertGeometry& geometry, std::size_t layer, std::size_t pool,
                  std::size_t expert) {
  return layer * (geometry.experts[0] + geometry.experts[1]) +
         (pool == 0 ? 0 : geometry.experts[0]) + expert;
}

/// "layers 1-27 text experts 0-31, ..." of everything that `test` is true of; at most three groups
/// of layers.
template <class Test>
std::string describe(const ExpertGeometry& geometry, const Test& test) {
  struct Group {
    std::size_t pool;
    std::vector<std::uint32_t> layers, experts;
  };
  std::vector<Group> groups;
  for (std::size_t pool = 0; pool < kPools; ++pool) {
    for (std::size_t layer = 0; layer < geometry.layer_is_moe.size(); ++layer) {
      if (!geometry.layer_is_moe[layer]) continue;
      std::vector<std::uint32_t> experts;
      for (std::uint32_t e = 0; e < geometry.experts[pool]; ++e)
        if (test(index(geometry, layer, pool, e))) experts.push_back(e);
      if (experts.empty()) continue;
      const auto same = std::find_if(groups.begin(), groups.end(), [&](const Group& group) {
        return group.pool == pool && group.experts == experts;
      });
      auto& group = same == groups.end() ? groups.emplace_back(Group{pool, {}, experts}) : *same;
      group.layers.push_back(static_cast<std::uint32_t>(layer));
    }
  }
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(groups.size(), 3); ++i) {
    const auto& group = groups[i];
    text += (text.empty() ? "" : "; ") +
            std::string(group.layers.size() > 1 ? "layers " : "layer ") +
            ranges_text(group.layers) + " " + kPoolNames[group.pool] +
            (group.experts.size() > 1 ? " experts " : " expert ") + ranges_text(group.experts);
  }
  return groups.size() > 3 ? text + "; ..." : text;
}

/// Numbers 0 .. count - 1 named by ranges; none: all.
/// @errors kInvalidArgument: the first number out of range, as text
Result<std::vector<std::uint32_t>> expand(const PlacementFile::Ranges& ranges, std::size_t count) {
  std::vector<std::uint32_t> numbers;
  if (ranges.empty())
    for (std::uint32_t n = 0; n < count; ++n) numbers.push_back(n);
  for (const auto& [first, last] : ranges) {
    if (last >= count)
      return fail(Errc::kInvalidArgument, std::to_string(std::max<std::size_t>(first, count)));
    for (auto n = first; n <= last; ++n) numbers.push_back(n);
  }
  return numbers;
}

/// Adds what one item of `experts` gives.
Result<void> grant(const PlacementFile& file, const PlacementFile::Experts& some,
                   const ExpertGeometry& geometry, Grant& to) {
  const auto where = at_line(file, some.line);
  const auto layers = expand(some.layers, geometry.layer_is_moe.size());
  if (!layers)
    return fail(Errc::kInvalidArgument, where + "layer " + layers.error().what +
                                            ": the model has layers 0-" +
                                            std::to_string(geometry.layer_is_moe.size() - 1));
  std::vector<std::size_t> twice;
  int before = 0;
  for (const auto pool : some.pools) {
    if (geometry.experts[pool] == 0) continue;
    const auto experts = expand(some.experts, geometry.experts[pool]);
    if (!experts)
      return fail(Errc::kInvalidArgument,
                  where + "expert " + experts.error().what + ": the model has " + kPoolNames[pool] +
                      " experts 0-" + std::to_string(geometry.experts[pool] - 1));
    for (const auto layer : *layers) {
      if (!geometry.layer_is_moe[layer]) {
        if (some.layers.empty()) continue;
        return fail(Errc::kInvalidArgument,
                    where + "layer " + std::to_string(layer) + " is dense: it has no experts");
      }
      for (const auto e : *experts) {
        auto& line = to.line[index(geometry, layer, pool, e)];
        if (line != 0) {
          twice.push_back(index(geometry, layer, pool, e));
          if (before == 0) before = line;
        }
        line = some.line;
      }
    }
  }
  if (twice.empty()) return {};
  std::sort(twice.begin(), twice.end());
  return fail(Errc::kInvalidArgument,
              where +
                  describe(geometry,
                           [&](std::size_t i) {
                             return std::binary_search(twice.begin(), twice.end(), i);
                           }) +
                  ": given twice to the same shard, also in line " + std::to_string(before));
}

const std::string* named(const PlacementFile::Entry& entry) {
  const auto name = entry.match.find("name");
  return name == entry.match.end() ? nullptr : &name->second;
}

/// What each entry gives; entries that name one shard share its grant.
struct Grants {
  std::vector<Grant> all;
  std::vector<std::size_t> of_entry;
};

Result<Grants> grants_of(const PlacementFile& file, const ExpertGeometry& geometry) {
  Grants grants;
  std::map<std::string, std::size_t> by_name;
  for (const auto& entry : file.shards) {
    auto at = grants.all.size();
    if (const auto* name = named(entry)) {
      if (entry.replicas > 1)
        return fail(Errc::kInvalidArgument, at_line(file, entry.line) + "replicas " +
                                                std::to_string(entry.replicas) +
                                                " of one shard, \"" + *name + "\"");
      at = by_name.emplace(*name, at).first->second;
    }
    if (at == grants.all.size()) grants.all.emplace_back(geometry);
    grants.of_entry.push_back(at);
    for (const auto& some : entry.experts)
      MOESAIC_CHECK(grant(file, some, geometry, grants.all[at]));
  }
  const auto homeless = describe(geometry, [&](std::size_t i) {
    return std::all_of(grants.all.begin(), grants.all.end(),
                       [&](const Grant& g) { return g.line[i] == 0; });
  });
  if (!homeless.empty())
    return fail(Errc::kInvalidArgument, file.name + ": no shard holds " + homeless);
  return grants;
}

std::optional<double> to_number(const std::string& text) {
  char* end = nullptr;
  const auto value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') return std::nullopt;
  return value;
}

bool matches(const PlacementFile::Entry& entry, const Member& shard) {
  return std::all_of(entry.match.begin(), entry.match.end(), [&](const auto& want) {
    const auto& [label, value] = want;
    if (label == "name") return shard.name == value;
    const auto has = shard.labels.find(label);
    if (has == shard.labels.end()) return false;
    if (!value.starts_with(">=")) return has->second == value;
    const auto least = to_number(value.substr(2));
    const auto there = to_number(has->second);
    return least && there && *there >= *least;
  });
}

/// Which entries serve which shards: a place is one replica of an entry.
class Matching {
 public:
  Matching(const PlacementFile& file, const std::vector<const Member*>& shards)
      : file_(file), shards_(shards), entry_of_(shards.size()), by_name_(shards.size()) {}

  Result<void> run() {
    for (std::size_t i = 0; i < file_.shards.size(); ++i)
      if (named(file_.shards[i]) != nullptr) MOESAIC_CHECK(take_named(i));
    for (std::size_t i = 0; i < file_.shards.size(); ++i) {
      const auto& entry = file_.shards[i];
      if (named(entry) != nullptr) continue;
      for (std::size_t replica = 0; replica < entry.replicas; ++replica) {
        tried_.assign(shards_.size(), false);
        if (!place(i)) return too_few(entry);
      }
    }
    return {};
  }

  /// Entries that shard `s` serves.
  std::vector<std::size_t> entries(std::size_t s) const {
    if (by_name_[s].empty() && entry_of_[s]) return {*entry_of_[s]};
    return by_name_[s];
  }

 private:
  Result<void> take_named(std::size_t entry) {
    for (std::size_t s = 0; s < shards_.size(); ++s) {
      if (!matches(file_.shards[entry], *shards_[s])) continue;
      by_name_[s].push_back(entry);
      return {};
    }
    return too_few(file_.shards[entry]);
  }

  /// Finds a shard for one more replica: a free one, else one whose entry can move to another.
  bool place(std::size_t entry) {
    for (const bool take_from_others : {false, true}) {
      for (std::size_t s = 0; s < shards_.size(); ++s) {
        if (tried_[s] || !by_name_[s].empty() || entry_of_[s] == entry ||
            entry_of_[s].has_value() != take_from_others ||
            !matches(file_.shards[entry], *shards_[s]))
          continue;
        tried_[s] = true;
        if (take_from_others && !place(*entry_of_[s])) continue;
        entry_of_[s] = entry;
        return true;
      }
    }
    return false;
  }

  tl::unexpected<Error> too_few(const PlacementFile::Entry& entry) const {
    std::size_t matching = 0;
    std::string there;
    for (const auto* shard : shards_) {
      if (matches(entry, *shard)) ++matching;
      there += (there.empty() ? "" : ", ") + shard->name + " " + labels_text(shard->labels);
    }
    return fail(Errc::kUnavailable,
                at_line(file_, entry.line) + std::to_string(entry.replicas) +
                    (entry.replicas == 1 ? " shard" : " shards") + " with " +
                    labels_text(entry.match) + " needed, " + std::to_string(matching) +
                    (matching == 1 ? " matches" : " match") +
                    (matching >= entry.replicas ? " but other entries need them" : "") +
                    "; registered: " + (there.empty() ? "none" : there));
  }

  const PlacementFile& file_;
  const std::vector<const Member*>& shards_;
  std::vector<std::optional<std::size_t>> entry_of_;
  std::vector<std::vector<std::size_t>> by_name_;
  std::vector<bool> tried_;
};

std::vector<const Member*> by_name(std::span<const Member> shards) {
  std::vector<const Member*> sorted;
  for (const auto& shard : shards) sorted.push_back(&shard);
  std::sort(sorted.begin(), sorted.end(),
            [](const Member* a, const Member* b) { return a->name < b->name; });
  return sorted;
}

/// @param holders members of the table's shards, in its order
Result<void> check_capacity(const std::string& file, const PlacementTable& table,
                            const ExpertGeometry& geometry,
                            const std::vector<const Member*>& holders) {
  for (std::size_t s = 0; s < holders.size(); ++s) {
    const auto bytes = placed_bytes(table, geometry, s);
    const auto capacity = holders[s]->capacity_bytes;
    if (capacity == 0 || bytes <= capacity) continue;
    return fail(Errc::kTooLarge, file + ": shard \"" + holders[s]->name + "\" would hold " +
                                     bytes_text(bytes) + " (" + std::to_string(bytes) +
                                     " bytes) of experts, its capacity is " + bytes_text(capacity) +
                                     " (" + std::to_string(capacity) + ")");
  }
  return {};
}

}  // namespace

Result<void> check_placement(const PlacementFile& file, const ExpertGeometry& geometry) {
  MOESAIC_CHECK(grants_of(file, geometry));
  return {};
}

Result<PlacementTable> resolve_placement(const PlacementFile& file, const ExpertGeometry& geometry,
                                         std::span<const Member> shards) {
  MOESAIC_TRY(const auto grants, grants_of(file, geometry));
  const auto candidates = by_name(shards);
  Matching matching(file, candidates);
  MOESAIC_CHECK(matching.run());

  PlacementTable table;
  table.epoch = std::max(1U, file.epoch);
  table.layers = static_cast<std::uint32_t>(geometry.layer_is_moe.size());
  table.experts = geometry.experts;
  table.owners.resize(table.layers * (table.experts[0] + table.experts[1]));
  std::vector<const Member*> holders;
  for (std::size_t s = 0; s < candidates.size(); ++s) {
    const auto entries = matching.entries(s);
    if (entries.empty()) continue;
    if (holders.size() == kMaxShards)
      return fail(Errc::kTooLarge, file.name + ": " + std::to_string(file.shards_needed()) +
                                       " shards hold experts, at most " +
                                       std::to_string(kMaxShards));
    // Entries that share a shard by name share one grant.
    const auto& given = grants.all[grants.of_entry[entries.front()]].line;
    for (std::size_t i = 0; i < given.size(); ++i)
      if (given[i] != 0) table.owners[i] |= ShardSet{1} << holders.size();
    holders.push_back(candidates[s]);
    table.shards.push_back(candidates[s]->name);
  }
  MOESAIC_CHECK(check_capacity(file.name, table, geometry, holders));
  return table;
}

Result<PlacementTable> default_placement(const ExpertGeometry& geometry,
                                         std::span<const Member> shards) {
  auto holders = by_name(shards);
  if (holders.empty()) return fail(Errc::kUnavailable, "even ranges: no shard is registered");
  if (holders.size() > kMaxShards) holders.resize(kMaxShards);
  std::vector<std::string> names;
  for (const auto* shard : holders) names.push_back(shard->name);
  auto table = PlacementTable::even_ranges(geometry, std::move(names));
  MOESAIC_CHECK(check_capacity("even ranges over " + std::to_string(holders.size()) +
                                   (holders.size() == 1 ? " shard" : " shards"),
                               table, geometry, holders));
  return table;
}

std::uint64_t placed_bytes(const PlacementTable& table, const ExpertGeometry& geometry,
                           std::size_t shard) {
  std::uint64_t bytes = 0;
  for (std::size_t layer = 0; layer < table.layers; ++layer)
    for (std::size_t pool = 0; pool < kPools; ++pool)
      for (std::size_t e = 0; e < table.experts[pool]; ++e)
        if ((table.at(layer, pool, e) >> shard & 1) != 0) bytes += geometry.expert_bytes[pool];
  return bytes;
}

std::string bytes_text(std::uint64_t bytes) {
  static constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.2f %s", value, kUnits[unit]);
  return text.data();
}

}  // namespace moesaic::cluster
