#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/engine/expert_loading.hpp"
#include "common/engine/remote_router.hpp"
#include "common/engine/routed_experts.hpp"
#include "common/engine/router_service.hpp"
#include "common/engine/shard_service.hpp"
#include "common/transport/in_process.hpp"
#include "tests/support/faulty_carrier.hpp"

namespace moesaic::test {

/// Shards and routers of one model in this process, over the in-process carrier with faults. Every
/// shard holds what the placement gives it and nothing else.
class ExpertCluster {
 public:
  /// @param model one table with all experts; outlives this
  ExpertCluster(const LoadedModel& model, cluster::PlacementTable placement, Tracer tracer = {})
      : model_(model), placement_(std::move(placement)), tracer_(std::move(tracer)) {
    opened_.config = model.config;
    opened_.compute = model.compute;
    for (const auto& name : placement_.shards) start_shard(name);
    publish();
  }

  void start_shard(const std::string& name) {
    ShardServiceParts parts;
    parts.config = model_.config;
    parts.compute = model_.compute;
    parts.table = without_others(opened_, model_.experts.front(), placement_, name);
    parts.epochs = {placement_.epoch, placement_.epoch};
    parts.listen = {address(name)};
    parts.tracer = tracer_;
    auto service = ShardService::start(std::move(parts), endpoint("expert-shard", name));
    ASSERT_TRUE(service) << service.error().what;
    shards_[name] = std::move(*service);
  }
  void stop_shard(const std::string& name) { shards_.erase(name); }
  ShardService& shard(const std::string& name) { return *shards_.at(name); }

  void start_router(const std::string& name) {
    RouterServiceParts parts;
    parts.config = model_.config;
    parts.compute = model_.compute;
    parts.gates = model_.gates;
    parts.source = std::make_shared<TopologySource>();
    parts.source->set(topology_);
    parts.listen = {address(name)};
    parts.tracer = tracer_;
    router_sources_[name] = parts.source;
    auto service = RouterService::start(std::move(parts), endpoint("router", name));
    ASSERT_TRUE(service) << service.error().what;
    routers_[name] = std::move(*service);
  }
  void stop_router(const std::string& name) { routers_.erase(name); }
  RouterService& router(const std::string& name) { return *routers_.at(name); }

  /// Another placement for everybody; shards' tables are the test's business.
  void place(cluster::PlacementTable placement) {
    placement_ = std::move(placement);
    publish();
  }
  const cluster::PlacementTable& placement() const { return placement_; }
  /// The experts that a placement gives to a shard.
  ExpertTablePtr table_of(const std::string& name, const cluster::PlacementTable& placement) const {
    return without_others(opened_, model_.experts.front(), placement, name);
  }

  /// Decoders of this cluster.
  std::unique_ptr<ExpertBackend> direct(FanOutOptions options = {}) {
    return std::make_unique<RoutedExperts>(
        model_.config, model_.gates, source,
        endpoint("decoder", "decoder-" + std::to_string(decoders_++)), *model_.pool, options);
  }
  std::unique_ptr<ExpertBackend> central(std::vector<std::string> routers,
                                         FanOutOptions options = {}) {
    for (const auto& name : routers) {
      topology_.routers.push_back(address(name));
      start_router(name);
    }
    publish();
    return std::make_unique<RemoteRouter>(
        model_.config, model_.gates, source,
        endpoint("decoder", "decoder-" + std::to_string(decoders_++)), *model_.pool, options);
  }

  /// Faults of a member's carrier, by its name.
  Faults& faults(const std::string& name) {
    auto& entry = faults_[name];
    if (!entry) entry = std::make_shared<Faults>();
    return *entry;
  }

  std::unique_ptr<transport::Endpoint> endpoint(const std::string& role, const std::string& name) {
    faults(name);
    transport::EndpointConfig config;
    config.self.role = role;
    config.self.name = name;
    config.self.incarnation = ++incarnation_;
    return std::make_unique<transport::Endpoint>(
        config, std::make_unique<FaultyCarrier>(transport::make_in_process_carrier(network_),
                                                faults_[name]));
  }

  const std::shared_ptr<TopologySource> source = std::make_shared<TopologySource>();

 private:
  static transport::Address address(const std::string& name) {
    return {transport::Address::Scheme::kInProcess, name, {}};
  }
  void publish() {
    ++topology_.version;
    topology_.placement = placement_;
    topology_.shard_addresses.clear();
    for (const auto& name : placement_.shards) topology_.shard_addresses.push_back({address(name)});
    source->set(topology_);
    for (const auto& [name, other] : router_sources_) other->set(topology_);
  }

  const LoadedModel& model_;
  OpenedModel opened_;
  cluster::PlacementTable placement_;
  Tracer tracer_;
  Topology topology_;
  std::shared_ptr<transport::InProcessNetwork> network_ = transport::make_in_process_network();
  std::uint32_t incarnation_ = 0;
  std::uint32_t decoders_ = 0;
  std::map<std::string, std::shared_ptr<Faults>> faults_;
  std::map<std::string, std::shared_ptr<TopologySource>> router_sources_;
  std::map<std::string, std::unique_ptr<ShardService>> shards_;
  std::map<std::string, std::unique_ptr<RouterService>> routers_;
};

/// A placement by a rule: owners(layer, pool, expert).
template <class Owners>
cluster::PlacementTable placement_by(const ModelConfig& config, std::size_t shards,
                                     Owners&& owners) {
  auto table = shard_placement(config, Compute::kBf16, shards);
  for (std::uint32_t layer = 0; layer < config.layers; ++layer)
    for (std::size_t m = 0; m < kModalities; ++m)
      for (std::uint32_t e = 0; e < config.experts[m]; ++e)
        if (config.layer_is_moe[layer])
          table.owners[table.index(layer, m, e)] = owners(layer, m, e);
  return table;
}

}  // namespace moesaic::test
