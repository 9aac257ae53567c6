#include "services/all_in_one/experts.hpp"

#include <charconv>

#include "common/engine/local_experts.hpp"
#include "common/engine/routed_experts.hpp"
#include "common/transport/in_process.hpp"

namespace moesaic {

Result<ExpertWiring> wire_experts(const LoadedModel& model, bool routed) {
  ExpertWiring wiring;
  if (!routed) {
    wiring.backend = std::make_unique<LocalExperts>(model.config, model.gates,
                                                    model.experts.front(), *model.pool);
    return wiring;
  }
  const auto network = transport::make_in_process_network();
  const auto endpoint = [&](const char* role, const std::string& name) {
    transport::EndpointConfig config;
    config.self.role = role;
    config.self.name = name;
    return std::make_unique<transport::Endpoint>(config,
                                                 transport::make_in_process_carrier(network));
  };
  Topology topology;
  topology.version = 1;
  topology.placement = shard_placement(model.config, model.compute, model.experts.size());
  for (std::size_t i = 0; i < model.experts.size(); ++i) {
    const auto& name = topology.placement.shards[i];
    ShardServiceParts parts{model.config, model.compute, model.experts[i], {1, 1}, {}, 1};
    parts.listen.push_back({transport::Address::Scheme::kInProcess, name, {}});
    MOESAIC_TRY(auto shard, ShardService::start(std::move(parts), endpoint("expert-shard", name)));
    topology.shard_addresses.push_back(shard->addresses());
    wiring.shards.push_back(std::move(shard));
  }
  auto source = std::make_shared<TopologySource>();
  source->set(std::move(topology));
  wiring.backend = std::make_unique<RoutedExperts>(model.config, model.gates, std::move(source),
                                                   endpoint("decoder", "decoder-0"), *model.pool);
  return wiring;
}

Result<std::size_t> parse_experts(const std::string& text) {
  if (text == "local") return std::size_t{0};
  constexpr std::string_view kPrefix = "routed:";
  std::size_t shards = 0;
  if (text.starts_with(kPrefix)) {
    const auto [end, error] =
        std::from_chars(text.data() + kPrefix.size(), text.data() + text.size(), shards);
    if (error == std::errc() && end == text.data() + text.size() && shards >= 1 && shards <= 64)
      return shards;
  }
  return fail(Errc::kInvalidArgument,
              "experts \"" + text + "\": expected local, or routed:N with N of 1 to 64");
}

}  // namespace moesaic
