#include "services/all_in_one/declared_shards.hpp"

#include <cstdlib>
#include <map>
#include <set>

namespace moesaic {
namespace {

Result<cluster::Member> declared(const std::string& text) {
  cluster::Member member;
  member.role = "expert-shard";
  const auto bad = [&](const std::string& part) {
    return fail(Errc::kInvalidArgument,
                "--shard \"" + text + "\": \"" + part + "\": expected label=value");
  };
  for (std::size_t at = 0; at <= text.size();) {
    const auto comma = std::min(text.find(',', at), text.size());
    const auto part = text.substr(at, comma - at);
    at = comma + 1;
    const auto equals = part.find('=');
    if (equals == std::string::npos || equals == 0 || equals + 1 == part.size()) return bad(part);
    const auto label = part.substr(0, equals);
    const auto value = part.substr(equals + 1);
    if (label == "name") {
      member.name = value;
      continue;
    }
    if (!member.labels.emplace(label, value).second) return bad(part);
    if (label != "memory_gib") continue;
    char* end = nullptr;
    const auto gib = std::strtod(value.c_str(), &end);
    if (*end != '\0' || !(gib > 0 && gib < 1e6)) return bad(part);
    member.capacity_bytes = static_cast<std::uint64_t>(gib * (1ULL << 30));
  }
  if (member.name.empty())
    return fail(Errc::kInvalidArgument, "--shard \"" + text + "\": name=... is missing");
  return member;
}

}  // namespace

Result<std::vector<cluster::Member>> declared_shards(const std::vector<std::string>& texts) {
  std::vector<cluster::Member> shards;
  std::set<std::string> names;
  for (const auto& text : texts) {
    MOESAIC_TRY(auto member, declared(text));
    if (!names.insert(member.name).second)
      return fail(Errc::kInvalidArgument, "--shard \"" + text + "\": two shards of that name");
    shards.push_back(std::move(member));
  }
  return shards;
}

std::vector<cluster::Member> invented_shards(const cluster::PlacementFile& file) {
  std::map<std::string, cluster::Member> shards;
  for (std::size_t i = 0; i < file.shards.size(); ++i) {
    const auto& entry = file.shards[i];
    for (std::size_t replica = 0; replica < entry.replicas; ++replica) {
      auto name = "entry-" + std::to_string(i) + "-" + std::to_string(replica);
      if (const auto named = entry.match.find("name"); named != entry.match.end())
        name = named->second;
      auto& member = shards[name];
      member.role = "expert-shard";
      member.name = name;
      for (const auto& [label, value] : entry.match)
        if (label != "name") member.labels[label] = value.substr(value.starts_with(">=") ? 2 : 0);
    }
  }
  std::vector<cluster::Member> list;
  for (auto& [name, member] : shards) list.push_back(std::move(member));
  return list;
}

}  // namespace moesaic
