#include "services/router/router_process.hpp"

#include "actors/supervisor/service_settings.hpp"
#include "actors/supervisor/view_topology.hpp"
#include "common/base/log.hpp"
#include "common/base/read_file.hpp"
#include "common/base/version.hpp"
#include "common/engine/expert_geometry.hpp"
#include "common/model/fingerprint.hpp"

namespace moesaic {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTick{50};
constexpr std::size_t kPlacementBytes = std::size_t{1} << 20;

std::unique_ptr<cluster::Registry> open_registry(const Settings& settings,
                                                 const transport::Identity& self) {
  if (settings.text("registry.kind") == "embedded")
    return cluster::make_embedded_registry(self.name, self.incarnation,
                                           settings.text("registry.file"));
  cluster::EtcdOptions options;
  options.endpoints = settings.items("registry.endpoints");
  options.name = self.name;
  return cluster::make_etcd_registry(std::move(options));
}

}  // namespace

Result<std::unique_ptr<RunningService>> RouterProcess::start(const Settings& settings) {
  MOESAIC_CHECK(check_numerics(settings));
  auto made = std::make_unique<RouterProcess>();
  MOESAIC_CHECK(made->open(settings));
  MOESAIC_CHECK(made->join(settings));
  return made;
}

Result<void> RouterProcess::open(const Settings& settings) {
  const auto options = model_options(settings);
  MOESAIC_TRY(auto hash, model_fingerprint(options.model, options.compute));
  MOESAIC_TRY(node_, Node::open(settings, "router", std::move(hash)));
  MOESAIC_TRY(const auto model, open_model(options));
  MOESAIC_CHECK(open_control(settings, model));
  MOESAIC_CHECK(open_dispatch(settings, model));
  banner_ = std::string("moesaic-router ") + kVersion + "\n";
  banner_ += "model         " + options.model + "\n";
  banner_ += "control       " + settings.text("router.listen") + ", registry " +
             settings.text("registry.kind") + "\n";
  return {};
}

Result<void> RouterProcess::open_control(const Settings& settings, const OpenedModel& model) {
  cluster::ControlConfig config;
  config.name = node_->identity().name;
  config.geometry = model.geometry();
  config.vision = true;
  config.shards = static_cast<std::size_t>(settings.integer("router.shards"));
  config.model_hash = node_->identity().model_hash;
  config.version = kVersion;
  config.wall_clock_us = [] {
    return std::chrono::duration_cast<std::chrono::microseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  };
  if (const auto& file = settings.text("placement.file"); !file.empty()) {
    MOESAIC_TRY(config.placement_yaml, read_file(file, kPlacementBytes));
    config.placement_name = file;
  }
  MOESAIC_TRY(auto control, cluster::ControlPlane::make(std::move(config)));
  control_.emplace(std::move(control));

  MOESAIC_TRY(auto endpoint, node_->endpoint({"gateway", "vision-encoder", "router", "expert-shard",
                                              "decoder", "tool"}));
  MOESAIC_CHECK(node_->listen(*endpoint, settings.items("router.listen"), false));
  control_link_ = std::make_unique<transport::Link>(
      std::move(endpoint), [this](transport::Endpoint& used, const transport::Event& event) {
        control_->on_event(event, Clock::now());
        carry_out(used);
      });
  registry_ = open_registry(settings, node_->identity());
  registry_->start([this](cluster::RegistryEvent event) {
    with_control([event = std::move(event)](cluster::ControlPlane& plane) {
      plane.on_registry(event, Clock::now());
    });
  });
  ticker_ = std::make_unique<Ticker>(kTick, [this] {
    with_control([](cluster::ControlPlane& plane) { plane.tick(Clock::now()); });
    store_placement();
  });
  return {};
}

Result<void> RouterProcess::open_dispatch(const Settings& settings, const OpenedModel& model) {
  MOESAIC_TRY(auto gates, model.routers());
  MOESAIC_TRY(auto endpoint, node_->endpoint({"decoder", "tool"}));
  MOESAIC_CHECK(node_->listen(*endpoint, settings.items("transport.listen"), true));
  RouterServiceParts parts;
  parts.config = model.config;
  parts.compute = model.compute;
  parts.gates = std::make_shared<const RouterWeights>(std::move(gates));
  parts.source = topology_;
  parts.threads = static_cast<unsigned>(settings.integer("router.dispatch_threads"));
  parts.tracer = node_->tracer();
  MOESAIC_TRY(dispatch_, RouterService::start(std::move(parts), std::move(endpoint)));
  MOESAIC_TRY(auto probing, node_->endpoint({}));
  prober_ = std::make_unique<ShardProber>(std::move(probing), node_->identity().host);
  return {};
}

Result<void> RouterProcess::join(const Settings& settings) {
  NodeMember member;
  member.not_ready = [prober = prober_.get()] { return prober->missing(); };
  member.adopted = [topology = topology_] { return topology->reach().adopted; };
  member.load = [dispatch = dispatch_.get()] {
    const auto counts = dispatch->counts();
    cluster::Load load;
    load.running = static_cast<std::uint32_t>(counts.open);
    load.rows = counts.rows;
    return load;
  };
  // By value: views still come while the node is being destroyed.
  member.on_view = [host = node_->identity().host, topology = topology_,
                    prober = prober_.get()](std::shared_ptr<const cluster::View> view) {
    topology->set(topology_of(*view, host));
    prober->set_view(std::move(view));
  };
  MOESAIC_CHECK(node_->join(settings, std::move(member)));
  banner_ += node_->describe();
  return {};
}

template <class Task>
void RouterProcess::with_control(Task task) {
  // A link that takes no more tasks is ending, or so far behind that the next tick will do.
  static_cast<void>(control_link_->post([this, task = std::move(task)](transport::Endpoint& used) {
    task(*control_);
    carry_out(used);
  }));
}

void RouterProcess::carry_out(transport::Endpoint& endpoint) {
  auto output = control_->take_output();
  for (const auto& line : output.log)
    log(line.warning ? LogLevel::kWarn : LogLevel::kInfo, line.text);
  // Who cannot be told has gone, or will be told again.
  for (auto& message : output.messages)
    static_cast<void>(endpoint.send(message.to, std::move(message.frame)));
  if (!output.store) return;
  const std::lock_guard lock(mutex_);
  store_ = std::move(output.store);
}

void RouterProcess::store_placement() {
  std::optional<cluster::ControlOutput::Store> store;
  {
    const std::lock_guard lock(mutex_);
    store = std::exchange(store_, std::nullopt);
  }
  if (!store) return;
  if (const auto stored = registry_->store(store->term, store->epoch, store->yaml); !stored)
    with_control(
        [error = stored.error()](cluster::ControlPlane& plane) { plane.store_failed(error); });
}

RouterProcess::~RouterProcess() { stop(); }

void RouterProcess::stop() {
  if (node_) node_->drain();
  ticker_.reset();
  if (registry_) registry_->stop();
  registry_.reset();
  // Control goes before the node: its callbacks use what follows.
  node_.reset();
  control_link_.reset();
  dispatch_.reset();
  prober_.reset();
}

}  // namespace moesaic
