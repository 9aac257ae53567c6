#include "services/decoder/decoder_service.hpp"

#include "actors/decoder/decoder.hpp"
#include "actors/supervisor/service_settings.hpp"
#include "actors/supervisor/view_topology.hpp"
#include "common/base/version.hpp"
#include "common/engine/remote_router.hpp"
#include "common/engine/routed_experts.hpp"
#include "common/model/fingerprint.hpp"

namespace moesaic {
namespace {

/// Of one gateway, without an answer yet; it bounds its requests itself.
constexpr std::uint16_t kOpenQuestions = 4096;

}  // namespace

Result<std::unique_ptr<RunningService>> DecoderService::start(const Settings& settings) {
  MOESAIC_CHECK(check_numerics(settings));
  auto made = std::make_unique<DecoderService>();
  MOESAIC_CHECK(made->load(settings));
  return made;
}

Result<void> DecoderService::load(const Settings& settings) {
  drain_time_ = std::chrono::seconds(settings.integer("limits.drain_seconds"));
  const auto options = model_options(settings);
  MOESAIC_TRY(auto hash, model_fingerprint(options.model, options.compute));
  MOESAIC_TRY(node_, Node::open(settings, "decoder", std::move(hash)));
  MOESAIC_TRY(auto endpoint, node_->endpoint({"gateway"}, kOpenQuestions));
  MOESAIC_CHECK(node_->listen(*endpoint, settings.items("transport.listen"), true));
  MOESAIC_TRY(auto probing, node_->endpoint({}));
  prober_ = std::make_unique<ShardProber>(std::move(probing), node_->identity().host);

  MOESAIC_CHECK(node_->announce(settings));
  MOESAIC_TRY(const auto model, open_model(options));
  pack_ = model.pack;
  MOESAIC_TRY(auto engine, open_engine(settings, model));
  actors_ = std::make_unique<ActorRuntime>();
  const auto owned = std::make_shared<std::unique_ptr<Engine>>(std::move(engine));
  decoder_ = actors_->system().spawn(
      moesaic::decoder, EngineFactory([events = events_, owned](Engine::OnEvents on_events) {
        *events = std::move(on_events);
        return std::move(*owned);
      }));
  const auto shared = std::make_shared<std::unique_ptr<transport::Endpoint>>(std::move(endpoint));
  ServiceEndParts end;
  end.not_ready = [prober = prober_.get()] { return prober->missing(); };
  end.open_link = [shared](transport::Link::OnEvent on_event) {
    return std::make_unique<transport::Link>(std::move(*shared), std::move(on_event));
  };
  end_ = actors_->system().spawn(decoder_end, std::move(end), decoder_);
  MOESAIC_CHECK(join(settings));

  banner_ = std::string("moesaic-decoder ") + kVersion + "\n";
  banner_ += "model         " + options.model + "\n";
  banner_ += "compute       " + describe_compute(model.compute, *model.pool) + "\n";
  banner_ += "dispatch      " + settings.text("router.dispatch") + "\n" + node_->describe();
  return {};
}

Result<std::unique_ptr<ExpertBackend>> DecoderService::open_experts(const Settings& settings,
                                                                    const OpenedModel& model) {
  MOESAIC_TRY(auto loaded, model.routers());
  const auto gates = std::make_shared<const RouterWeights>(std::move(loaded));
  MOESAIC_TRY(auto endpoint, node_->endpoint({}));
  if (settings.text("router.dispatch") == "direct")
    return std::make_unique<RoutedExperts>(model.config, gates, topology_, std::move(endpoint),
                                           *model.pool);
  return std::make_unique<RemoteRouter>(model.config, gates, topology_, std::move(endpoint),
                                        *model.pool);
}

Result<std::unique_ptr<Engine>> DecoderService::open_engine(const Settings& settings,
                                                            const OpenedModel& model) {
  MOESAIC_TRY(const auto tokenizer, Tokenizer::load(model_directory(settings)));
  auto engine = engine_settings(settings, *tokenizer);
  engine.tracer = node_->tracer();
  const auto bytes = model.weights().decoder_bytes();
  MOESAIC_CHECK(check_memory(model, engine, bytes));
  LoadedModel loaded;
  loaded.config = model.config;
  loaded.compute = model.compute;
  loaded.pool = model.pool;
  if (model.pack) loaded.mapped_bytes = bytes;
  MOESAIC_TRY(auto weights, model.decoder([&](std::uint64_t done, const std::string& what) {
    node_->load_state().set(done, bytes, what);
  }));
  loaded.decoder = std::make_shared<const DecoderWeights>(std::move(weights));
  MOESAIC_TRY(auto experts, open_experts(settings, model));
  node_->load_state().done();
  return make_engine(loaded, engine, std::move(experts),
                     [events = events_](TokenEvents told) { (*events)(std::move(told)); });
}

Result<void> DecoderService::join(const Settings& settings) {
  NodeMember member;
  member.not_ready = [prober = prober_.get()] { return prober->missing(); };
  member.adopted = [topology = topology_] { return topology->reach().adopted; };
  // By value: views still come while the node is being destroyed.
  member.on_view = [host = node_->identity().host, topology = topology_,
                    prober = prober_.get()](std::shared_ptr<const cluster::View> view) {
    topology->set(topology_of(*view, host));
    prober->set_view(std::move(view));
  };
  // Gateways see it in their view and give new requests to others.
  member.load = [] { return cluster::Load{}; };
  return node_->join(settings, std::move(member));
}

DecoderService::~DecoderService() { stop(); }

void DecoderService::stop() {
  if (actors_) {
    node_->drain();
    caf::scoped_actor self(actors_->system());
    self->request(decoder_, drain_time_, drain_atom::value)
        .receive([] {}, [](const caf::error&) {});
  }
  node_.reset();
  if (actors_) {
    actors_->end(end_);
    actors_->end(decoder_);
  }
  prober_.reset();
  actors_.reset();
}

}  // namespace moesaic
