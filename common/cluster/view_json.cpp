#include "common/cluster/view_json.hpp"

#include <boost/json.hpp>
#include <map>
#include <vector>

#include "common/cluster/placement_file.hpp"

namespace moesaic::cluster {
namespace {

namespace json = boost::json;
using Numbers = std::vector<std::uint32_t>;

json::object member_json(const MemberState& state) {
  const auto& m = state.member;
  const auto& l = state.load;
  return {{"role", m.role},
          {"name", m.name},
          {"alive", state.alive},
          {"incarnation", m.incarnation},
          {"host", m.host},
          {"addresses", json::value_from(m.addresses)},
          {"admin", m.admin},
          {"labels", json::value_from(m.labels)},
          {"capacity_bytes", m.capacity_bytes},
          {"model_hash", m.model_hash},
          {"version", m.version},
          {"wire_version", m.wire_version},
          {"load",
           {{"ready", l.ready},
            {"draining", l.draining},
            {"running", l.running},
            {"waiting", l.waiting},
            {"kv_blocks_free", l.kv_blocks_free},
            {"kv_blocks_total", l.kv_blocks_total},
            {"rows", l.rows},
            {"resident_bytes", l.resident_bytes},
            {"epoch", l.epoch},
            {"detail", l.detail}}}};
}

json::array experts_json(const PlacementTable& table, std::size_t shard, std::uint64_t& count) {
  json::array groups;
  for (std::size_t pool = 0; pool < kPools; ++pool) {
    std::map<Numbers, Numbers> layers_of;  // experts: layers
    for (std::uint32_t layer = 0; layer < table.layers; ++layer) {
      Numbers experts;
      for (std::uint32_t e = 0; e < table.experts[pool]; ++e)
        if ((table.at(layer, pool, e) >> shard & 1) != 0) experts.push_back(e);
      count += experts.size();
      if (!experts.empty()) layers_of[experts].push_back(layer);
    }
    for (const auto& [experts, layers] : layers_of)
      groups.push_back({{"layers", ranges_text(layers)},
                        {"modality", pool == 0 ? "text" : "vision"},
                        {"experts", ranges_text(experts)}});
  }
  return groups;
}

}  // namespace

std::string to_json(const View& view) {
  json::array members, shards;
  for (const auto& state : view.members) members.push_back(member_json(state));
  for (std::size_t s = 0; s < view.placement.shards.size(); ++s) {
    std::uint64_t count = 0;
    auto experts = experts_json(view.placement, s, count);
    shards.push_back(
        {{"name", view.placement.shards[s]}, {"count", count}, {"experts", std::move(experts)}});
  }
  return json::serialize(json::object{
      {"term", view.term},
      {"version", view.version},
      {"leader", view.leader},
      {"ready", view.ready},
      {"missing", view.missing},
      {"members", std::move(members)},
      {"placement", {{"epoch", view.placement.epoch}, {"shards", std::move(shards)}}}});
}

}  // namespace moesaic::cluster
