#include "services/expert_shard/expert_shard_service.hpp"

#include <algorithm>
#include <boost/json.hpp>

#include "actors/supervisor/service_settings.hpp"
#include "common/base/available_memory.hpp"
#include "common/base/log.hpp"
#include "common/base/version.hpp"
#include "common/cluster/placement_resolve.hpp"
#include "common/engine/memory_plan.hpp"
#include "common/engine/topology.hpp"
#include "common/metrics/metrics.hpp"
#include "common/model/fingerprint.hpp"

namespace moesaic {
namespace {

std::uint64_t capacity(const Settings& settings) {
  if (const auto configured = settings.integer("shard.capacity_bytes"); configured > 0)
    return static_cast<std::uint64_t>(configured);
  const auto available = available_memory();
  return available > kMemoryReserve ? available - kMemoryReserve : 0;
}

}  // namespace

Result<std::unique_ptr<RunningService>> ExpertShardProcess::start(const Settings& settings) {
  MOESAIC_CHECK(check_numerics(settings));
  auto made = std::make_unique<ExpertShardProcess>();
  MOESAIC_CHECK(made->open(settings));
  MOESAIC_CHECK(made->join(settings));
  return made;
}

Result<void> ExpertShardProcess::open(const Settings& settings) {
  const auto options = model_options(settings);
  MOESAIC_TRY(auto hash, model_fingerprint(options.model, options.compute));
  MOESAIC_TRY(node_, Node::open(settings, "expert-shard", std::move(hash)));
  MOESAIC_TRY(model_, open_model(options));
  MOESAIC_TRY(auto endpoint, node_->endpoint({"decoder", "router", "tool"}));
  const auto addresses = settings.items("transport.listen");
  MOESAIC_CHECK(node_->listen(*endpoint, addresses, true));
  ShardServiceParts parts;
  parts.neighbours = std::any_of(addresses.begin(), addresses.end(), [](const auto& text) {
    const auto address = transport::parse_address(text);
    return address && is_neighbour(*address);
  });
  parts.config = model_.config;
  parts.compute = model_.compute;
  parts.table = no_experts(model_);
  parts.threads = model_.pool->size();
  parts.tracer = node_->tracer();
  parts.expert_metrics = settings.yes("shard.expert_metrics");
  MOESAIC_TRY(service_, ShardService::start(std::move(parts), std::move(endpoint)));
  banner_ = std::string("moesaic-expert-shard ") + kVersion + "\n";
  banner_ += "model         " + options.model + "\n";
  banner_ += "compute       " + describe_compute(model_.compute, *model_.pool) + "\n";
  return {};
}

Result<void> ExpertShardProcess::join(const Settings& settings) {
  loader_ = std::jthread([this](const std::stop_token& stop) { work(stop); });
  NodeMember member;
  member.capacity_bytes = capacity(settings);
  member.not_ready = [this] { return not_ready(); };
  member.load = [this] {
    cluster::Load load;
    load.rows = service_->counts().rows;
    load.resident_bytes = service_->table()->bytes();
    return load;
  };
  member.on_prepare = [this](const cluster::PlacementTable& table) { take({false, table}); };
  member.on_release = [this](const cluster::PlacementTable& table) { take({true, table}); };
  member.add_routes = [this](HttpRouter& router) {
    router.add("GET", "/experts", [this](HttpRequest, std::shared_ptr<Responder> responder) {
      HttpAnswer answer;
      answer.headers.add("Content-Type", "application/json");
      answer.body = experts_json();
      responder->send(std::move(answer));
    });
  };
  MOESAIC_CHECK(node_->join(settings, std::move(member)));
  banner_ += node_->describe();
  return {};
}

/// {"shard": name, "rows": {"text": [layer][expert], "vision": ..}}: rows computed since start.
std::string ExpertShardProcess::experts_json() const {
  const auto rows = service_->expert_rows();
  boost::json::object matrices;
  std::size_t first = 0;
  for (const auto modality : {Modality::kText, Modality::kVision}) {
    const auto experts = model_.config.experts[static_cast<std::size_t>(modality)];
    boost::json::array layers;
    for (std::uint32_t layer = 0; layer < model_.config.layers; ++layer) {
      const auto* of = rows.data() + layer * (model_.config.experts[0] + model_.config.experts[1]);
      layers.emplace_back(boost::json::array(of + first, of + first + experts));
    }
    matrices[modality == Modality::kText ? "text" : "vision"] = std::move(layers);
    first += experts;
  }
  return boost::json::serialize(
      boost::json::object{{"shard", node_->identity().name}, {"rows", std::move(matrices)}});
}

void ExpertShardProcess::take(Order order) {
  {
    const std::lock_guard lock(mutex_);
    (order.release ? release_ : prepare_) = std::move(order);
  }
  wake_.notify_one();
}

std::optional<std::string> ExpertShardProcess::not_ready() const {
  const std::lock_guard lock(mutex_);
  return state_.empty() ? std::nullopt : std::optional(state_);
}

void ExpertShardProcess::work(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    std::optional<Order> prepare_now, release_now;
    {
      std::unique_lock lock(mutex_);
      if (!wake_.wait(lock, stop, [&] { return prepare_ || release_; })) return;
      prepare_now = std::exchange(prepare_, std::nullopt);
      release_now = std::exchange(release_, std::nullopt);
    }
    // Whichever epoch is older came first.
    if (release_now &&
        (!prepare_now || release_now->placement.epoch <= prepare_now->placement.epoch))
      release(std::exchange(release_now, std::nullopt)->placement);
    if (prepare_now) prepare(stop, prepare_now->placement);
    if (release_now) release(release_now->placement);
  }
}

/// Bytes of the experts that a placement gives to this shard.
std::uint64_t ExpertShardProcess::placed_bytes(const cluster::PlacementTable& placement) const {
  const auto& name = node_->identity().name;
  const auto at = std::find(placement.shards.begin(), placement.shards.end(), name);
  if (at == placement.shards.end()) return 0;
  return cluster::placed_bytes(placement, model_.geometry(),
                               static_cast<std::size_t>(at - placement.shards.begin()));
}

void ExpertShardProcess::prepare(const std::stop_token& stop,
                                 const cluster::PlacementTable& placement) {
  const auto& name = node_->identity().name;
  cluster::Prepared done;
  done.epoch = placement.epoch;
  if (epochs_.oldest == 0) epochs_.oldest = placement.epoch;
  epochs_.newest = std::max(epochs_.newest, placement.epoch);
  auto progress = metrics::gauge("moesaic_engine_load_progress_ratio");
  progress.set(0);
  const auto total = placed_bytes(placement);
  for (std::uint32_t layer = 0; layer < placement.layers; ++layer) {
    if (stop.stop_requested()) return;
    const auto held = service_->table();
    const auto what = "experts of layer " + std::to_string(layer);
    node_->load_state().set(held->bytes(), total, what);
    auto table = add_layer(model_, held, placement, name, layer,
                           [&, before = held->bytes()](std::uint64_t bytes, const std::string&) {
                             node_->load_state().set(before + bytes, total, what);
                           });
    if (!table) {
      log(LogLevel::kError, "placement " + std::to_string(placement.epoch) + ", layer " +
                                std::to_string(layer) + ": " + table.error().what);
      done.error = table.error().what;
      node_->load_state().done();
      node_->prepared(done);
      return;
    }
    service_->set_table(std::move(*table), epochs_);
    done.layers.push_back(layer);
    progress.set(static_cast<double>(layer + 1) / placement.layers);
    // A few messages, not one a layer.
    if (done.layers.size() % 4 == 0) node_->prepared(done);
  }
  {
    const std::lock_guard lock(mutex_);
    state_.clear();
  }
  node_->load_state().done();
  node_->prepared(done);
  log(LogLevel::kInfo, "placement " + std::to_string(placement.epoch) + " is loaded: " +
                           std::to_string(service_->table()->bytes() >> 20) + " MiB of experts");
}

void ExpertShardProcess::release(const cluster::PlacementTable& placement) {
  epochs_.oldest = placement.epoch;
  epochs_.newest = std::max(epochs_.newest, placement.epoch);
  service_->set_table(without_others(model_, service_->table(), placement, node_->identity().name),
                      epochs_);
}

ExpertShardProcess::~ExpertShardProcess() { stop(); }

void ExpertShardProcess::stop() {
  if (node_) node_->drain();
  loader_ = {};
  node_.reset();
  service_.reset();
}

}  // namespace moesaic
