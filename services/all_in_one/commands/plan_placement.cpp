#include "services/all_in_one/commands/plan_placement.hpp"

#include <boost/json.hpp>
#include <cstdio>
#include <optional>

#include "common/base/read_file.hpp"
#include "common/cluster/placement_resolve.hpp"
#include "common/cluster/view_json.hpp"
#include "common/kernels/ceilings.hpp"
#include "services/all_in_one/declared_shards.hpp"
#include "services/all_in_one/placement_cost.hpp"

namespace moesaic {
namespace {

namespace json = boost::json;
using cluster::bytes_text;
using cluster::kPools;

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 20;
constexpr std::array<const char*, kPools> kTokens = {"text", "image"};

/// A placement that fits, and what it costs.
struct Plan {
  std::string source;
  cluster::ExpertGeometry geometry;
  cluster::PlacementTable table;
  std::vector<cluster::Member> shards;  ///< as in the table
  std::vector<std::uint64_t> bytes;     ///< of each
  std::array<TokenCost, kPools> cost;
  std::size_t layers = 0;  ///< with experts
  double gbps = 0;         ///< 1e9 bytes a second
  bool measured = false;
  double rtt_us = 0;

  double layer_us(std::size_t pool, unsigned round_trips) const {
    return 1e6 * layer_seconds(cost[pool], geometry.expert_bytes[pool], gbps * 1e9, rtt_us * 1e-6,
                               round_trips);
  }
};

Result<void> resolve(const PlacementPlanOptions& options, Plan& plan) {
  MOESAIC_TRY(auto shards, declared_shards(options.shards));
  if (options.placement.empty()) {
    plan.source = "even ranges";
    MOESAIC_TRY(plan.table, cluster::default_placement(plan.geometry, shards));
  } else {
    plan.source = options.placement;
    MOESAIC_TRY(const auto yaml, read_file(options.placement, kMaxFileBytes));
    MOESAIC_TRY(const auto file, cluster::parse_placement(yaml, options.placement));
    if (shards.empty()) shards = invented_shards(file);
    MOESAIC_TRY(plan.table, cluster::resolve_placement(file, plan.geometry, shards));
  }
  for (const auto& name : plan.table.shards)
    plan.shards.push_back(*std::find_if(shards.begin(), shards.end(),
                                        [&](const auto& shard) { return shard.name == name; }));
  return {};
}

Result<Plan> make_plan(const PlacementPlanOptions& options) {
  Plan plan;
  const auto& model = options.model;
  MOESAIC_TRY(const auto opened, open_model(model));
  const auto& config = opened.config;
  plan.geometry = opened.geometry();
  MOESAIC_CHECK(resolve(options, plan));
  for (std::size_t s = 0; s < plan.shards.size(); ++s)
    plan.bytes.push_back(cluster::placed_bytes(plan.table, plan.geometry, s));
  for (std::size_t pool = 0; pool < kPools; ++pool)
    plan.cost[pool] = token_cost(plan.table, plan.geometry, pool);
  plan.layers = static_cast<std::size_t>(
      std::count(config.layer_is_moe.begin(), config.layer_is_moe.end(), true));
  plan.rtt_us = options.rtt_us > 0 ? options.rtt_us : options.carrier == "shm" ? 12 : 90;
  plan.gbps = options.gbps;
  if (plan.gbps == 0) {
    ThreadPool pool(model.threads > 0 ? model.threads : usable_cpus());
    plan.gbps = measure_read_gbs(pool, std::size_t{512} << 20);
    plan.measured = true;
  }
  return plan;
}

json::object cost_json(const Plan& plan, std::size_t pool) {
  const auto& cost = plan.cost[pool];
  json::array shards;
  for (std::size_t s = 0; s < cost.shards.size(); ++s) {
    const auto& shard = cost.shards[s];
    shards.push_back({{"name", plan.table.shards[s]},
                      {"asked", shard.asked},
                      {"experts", shard.experts},
                      {"nodes", shard.nodes},
                      {"bytes_out", shard.bytes_out},
                      {"bytes_back", shard.bytes_back}});
  }
  return {
      {"token", kTokens[pool]},
      {"shards_per_layer", std::move(shards)},
      {"busiest_experts", cost.busiest_experts},
      {"direct",
       {{"decoder_shards_bytes_per_token", cost.shard_bytes() * static_cast<double>(plan.layers)},
        {"layer_us", plan.layer_us(pool, 1)}}},
      {"central",
       {{"decoder_router_bytes_per_token",
         (cost.router_out + cost.router_back) * static_cast<double>(plan.layers)},
        {"router_shards_bytes_per_token", cost.shard_bytes() * static_cast<double>(plan.layers)},
        {"layer_us", plan.layer_us(pool, 2)}}}};
}

void print_json(const Plan& plan) {
  cluster::View view;
  view.placement = plan.table;
  auto placement = json::parse(cluster::to_json(view)).at("placement").as_object();
  auto& shards = placement["shards"].as_array();
  for (std::size_t s = 0; s < shards.size(); ++s) {
    auto& shard = shards[s].as_object();
    shard["bytes"] = plan.bytes[s];
    shard["capacity_bytes"] = plan.shards[s].capacity_bytes;
    shard["labels"] = json::value_from(plan.shards[s].labels);
  }
  json::array costs;
  for (std::size_t pool = 0; pool < kPools; ++pool) costs.push_back(cost_json(plan, pool));
  std::printf("%s\n", json::serialize(json::object{{"placement", std::move(placement)},
                                                   {"moe_layers", plan.layers},
                                                   {"memory_gbps", plan.gbps},
                                                   {"memory_measured", plan.measured},
                                                   {"rtt_us", plan.rtt_us},
                                                   {"samples", 10'000},
                                                   {"cost", std::move(costs)}})
                          .c_str());
}

std::string labels_text(const cluster::Member& member) {
  std::string text;
  for (const auto& [label, value] : member.labels)
    text += (text.empty() ? "" : ",") + label + "=" + value;
  return text.empty() ? "-" : text;
}

void print_shards(const Plan& plan) {
  cluster::View view;
  view.placement = plan.table;
  const auto parsed = json::parse(cluster::to_json(view));
  const auto& groups = parsed.at("placement").at("shards").as_array();
  std::printf("%-16s %-24s %8s %12s %12s  %s\n", "shard", "labels", "experts", "bytes", "capacity",
              "holds");
  for (std::size_t s = 0; s < plan.shards.size(); ++s) {
    std::string holds;
    for (const auto& group : groups[s].at("experts").as_array())
      holds += (holds.empty() ? "" : "; ") + std::string(group.at("modality").as_string()) + " " +
               std::string(group.at("experts").as_string()) + " of layers " +
               std::string(group.at("layers").as_string());
    const auto capacity = plan.shards[s].capacity_bytes;
    std::printf("%-16s %-24s %8lld %12s %12s  %s\n", plan.shards[s].name.c_str(),
                labels_text(plan.shards[s]).c_str(),
                static_cast<long long>(groups[s].at("count").to_number<std::int64_t>()),
                bytes_text(plan.bytes[s]).c_str(),
                capacity == 0 ? "-" : bytes_text(capacity).c_str(), holds.c_str());
  }
}

void print_costs(const Plan& plan) {
  const auto layers = static_cast<double>(plan.layers);
  std::printf("\nper token, %zu layers with experts (uniform routing, 10,000 sampled choices)\n",
              plan.layers);
  std::printf("%-7s %-9s %16s %16s %16s %12s %12s\n", "token", "dispatch", "decoder-router",
              "dispatch-shards", "shards a layer", "us a layer", "ms a token");
  for (std::size_t pool = 0; pool < kPools; ++pool) {
    const auto& cost = plan.cost[pool];
    double asked = 0;
    for (const auto& shard : cost.shards) asked += shard.asked;
    for (const unsigned trips : {1U, 2U}) {
      const auto router = trips == 1 ? 0 : (cost.router_out + cost.router_back) * layers;
      const auto us = plan.layer_us(pool, trips);
      std::printf("%-7s %-9s %14.0f B %14.0f B %16.2f %12.1f %12.3f\n", kTokens[pool],
                  trips == 1 ? "direct" : "central", router, cost.shard_bytes() * layers, asked, us,
                  us * layers / 1000);
    }
  }
  std::printf("\nper %s token and layer, by shard\n", kTokens[0]);
  std::printf("%-16s %8s %8s %8s %12s %12s\n", "shard", "asked", "experts", "nodes", "bytes out",
              "bytes back");
  for (std::size_t s = 0; s < plan.shards.size(); ++s) {
    const auto& shard = plan.cost[0].shards[s];
    std::printf("%-16s %8.3f %8.3f %8.3f %12.0f %12.0f\n", plan.shards[s].name.c_str(), shard.asked,
                shard.experts, shard.nodes, shard.bytes_out, shard.bytes_back);
  }
  std::printf("\nmemory %.1f GB/s (%s), %.0f us a round trip\n", plan.gbps,
              plan.measured ? "measured here" : "as given", plan.rtt_us);
}

}  // namespace

Result<void> plan_placement(const PlacementPlanOptions& options) {
  MOESAIC_TRY(const auto plan, make_plan(options));
  if (options.as_json) {
    print_json(plan);
    return {};
  }
  std::printf("placement %s\n\n", plan.source.c_str());
  print_shards(plan);
  print_costs(plan);
  return {};
}

}  // namespace moesaic
