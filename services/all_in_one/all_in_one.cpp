#include "services/all_in_one/all_in_one.hpp"

#include "actors/gateway/gateway.hpp"
#include "common/api/generation_defaults.hpp"
#include "common/base/version.hpp"
#include "common/kernels/isa.hpp"
#include "services/all_in_one/experts.hpp"

namespace moesaic {
namespace {

ModelOptions model_options(const Settings& settings, std::size_t shards) {
  ModelOptions options;
  options.model =
      settings.text("model.dir").empty() ? demo_model_dir().string() : settings.text("model.dir");
  options.compute = settings.text("model.compute");
  options.threads = static_cast<unsigned>(settings.integer("engine.threads"));
  options.shards = std::max<std::size_t>(shards, 1);
  return options;
}

EngineSettings engine_settings(const Settings& settings, const Tokenizer& tokenizer) {
  EngineSettings engine;
  engine.kv_bytes = static_cast<std::uint64_t>(settings.integer("kv.bytes"));
  engine.max_context = static_cast<std::size_t>(settings.integer("engine.max_context"));
  engine.drawable_ids = static_cast<std::uint32_t>(tokenizer.size());
  engine.limits.max_running = static_cast<std::size_t>(settings.integer("engine.max_running"));
  engine.limits.max_waiting = static_cast<std::size_t>(settings.integer("engine.max_waiting"));
  engine.limits.step_rows = static_cast<std::size_t>(settings.integer("engine.step_rows"));
  engine.limits.prefill_chunk = static_cast<std::size_t>(settings.integer("engine.prefill_chunk"));
  return engine;
}

Result<GatewayModel> gateway_model(const Settings& settings, const LoadedModel& model,
                                   const std::string& directory) {
  GatewayModel gateway;
  // A trailing slash has no name of its own.
  const auto path = std::filesystem::path(directory + "/.").lexically_normal().parent_path();
  gateway.name =
      settings.text("model.name").empty() ? path.filename().string() : settings.text("model.name");
  MOESAIC_TRY(gateway.tokenizer, Tokenizer::load(directory));
  if (settings.text("chat.format") == "auto") {
    gateway.style = guess_chat_style(directory);
  } else {
    MOESAIC_TRY(gateway.style, parse_chat_style(settings.text("chat.format")));
  }
  gateway.config = model.config;
  MOESAIC_TRY(gateway.preprocess,
              PreprocessConfig::load(directory, demo_model_dir() / "Roboto-Regular.ttf"));
  MOESAIC_TRY(gateway.defaults, load_generation_defaults(directory));
  const auto context = static_cast<std::uint32_t>(settings.integer("engine.max_context"));
  gateway.max_context =
      context > 0 ? std::min(context, model.config.max_positions) : model.config.max_positions;
  gateway.image_limits.max_bytes = static_cast<std::size_t>(settings.integer("limits.image_bytes"));
  gateway.image_limits.max_pixels = settings.integer("limits.image_pixels");
  gateway.limits.max_images = static_cast<std::size_t>(settings.integer("limits.images"));
  gateway.limits.max_frames = static_cast<std::size_t>(settings.integer("limits.video_frames"));
  gateway.limits.max_image_bytes = gateway.image_limits.max_bytes;
  return gateway;
}

/// `portable` and `avx512bf16` differ in bf16 sums: a process runs what its configuration names, or
/// says why it cannot.
Result<void> check_numerics(const std::string& numerics) {
  const bool own_sums = active_isa() == Isa::kAvx512Bf16;
  const std::string level(isa_name(active_isa()));
  if (numerics == "portable" && own_sums)
    return fail(Errc::kInvalidArgument, "engine.numerics is portable, MOESAIC_ISA forces " + level +
                                            ", whose bf16 sums are not");
  if (numerics == "avx512bf16" && !own_sums)
    return fail(Errc::kInvalidArgument,
                "engine.numerics is avx512bf16, this process runs level " + level +
                    "; start it with MOESAIC_ISA=avx512bf16 on a CPU that has it");
  return {};
}

}  // namespace

struct AllInOne::ActorSystem {
  struct Config : caf::actor_system_config {
    Config() {
      // "sharing" sleeps when idle, "stealing" polls.
      set("scheduler.policy", caf::atom("sharing"));
      set("scheduler.max-threads", std::size_t{2});
    }
  };
  Config config;
  caf::actor_system system{config};
};

AllInOne::AllInOne() : ready_(std::make_shared<std::atomic<ReadyState>>(ReadyState::kLoading)) {}

AllInOne::~AllInOne() { stop(); }

Result<std::unique_ptr<RunningService>> AllInOne::start(const Settings& settings) {
  MOESAIC_CHECK(check_numerics(settings.text("engine.numerics")));
  std::unique_ptr<AllInOne> made(new AllInOne);
  made->drain_time_ = std::chrono::seconds(settings.integer("limits.drain_seconds"));
  MOESAIC_CHECK(made->load(settings));
  MOESAIC_CHECK(made->listen(settings));
  return made;
}

Result<void> AllInOne::load(const Settings& settings) {
  MOESAIC_TRY(const auto shards, parse_experts(settings.text("engine.experts")));
  const auto options = model_options(settings, shards);
  MOESAIC_TRY(auto model, load_model(options));
  MOESAIC_TRY(auto gateway, gateway_model(settings, model, options.model));

  actors_ = std::make_unique<ActorSystem>();
  ClusterParts parts;
  parts.model = model;
  parts.routed_shards = shards;
  parts.engine = engine_settings(settings, *gateway.tokenizer);
  parts.preprocess = gateway.preprocess;
  parts.image_limits = gateway.image_limits;
  parts.vision_cache_bytes = static_cast<std::size_t>(settings.integer("vision.cache_bytes"));
  parts.on_change = [ready = ready_](const ClusterStatus& status) {
    // Draining is final.
    auto seen = ready->load();
    while (seen != ReadyState::kDraining &&
           !ready->compare_exchange_weak(
               seen, status.ready ? ReadyState::kReady : ReadyState::kUnavailable)) {
    }
  };
  MOESAIC_TRY(cluster_, Cluster::start(actors_->system, std::move(parts)));
  gateway_ = actors_->system.spawn(moesaic::gateway, Membership::kFixed, cluster_->decoder(),
                                   cluster_->vision());
  cluster_->join("gateway", "gateway-0", gateway_.address());

  write_banner(settings, model, options.model);
  GatewayServiceConfig config;
  config.model = std::move(gateway);
  config.version = {kVersion, kGitId, kBuild, ""};
  config.max_requests = static_cast<std::size_t>(settings.integer("engine.max_running") +
                                                 settings.integer("engine.max_waiting"));
  service_ = std::make_unique<GatewayService>(std::move(config), gateway_,
                                              [ready = ready_] { return ready->load(); });
  return {};
}

Result<void> AllInOne::listen(const Settings& settings) {
  HttpServerConfig config;
  config.host = settings.text("http.host");
  config.port = static_cast<std::uint16_t>(settings.integer("http.port"));
  config.header_limit = static_cast<std::size_t>(settings.integer("limits.header_bytes"));
  config.body_limit = static_cast<std::size_t>(settings.integer("limits.body_bytes"));
  HttpRouter router;
  service_->add_routes(router);
  MOESAIC_TRY(http_, HttpServer::start(config, std::move(router), &GatewayService::refusal));
  banner_ += "listening     http://" + config.host + ":" + std::to_string(http_->port()) + "\n";
  return {};
}

void AllInOne::write_banner(const Settings& settings, const LoadedModel& model,
                            const std::string& directory) {
  banner_ = std::string("moesaic ") + kVersion + "\n";
  banner_ += "model         " + directory + "\n";
  banner_ += "compute       " + settings.text("model.compute") + ", level " +
             std::string(isa_name(active_isa())) + ", " + std::to_string(model.pool->size()) +
             " threads\n";
  banner_ += "experts       " + settings.text("engine.experts") + "\n";
}

void AllInOne::stop() {
  ready_->store(ReadyState::kDraining);
  if (gateway_) {
    // Open requests go on while their answers can still be sent.
    caf::scoped_actor self(actors_->system);
    self->request(gateway_, drain_time_, drain_atom::value)
        .receive([] {}, [](const caf::error&) {});
  }
  if (http_) http_->stop(std::chrono::seconds(1));
  http_.reset();
  service_.reset();
  if (gateway_) {
    caf::scoped_actor self(actors_->system);
    self->monitor(gateway_);
    self->send_exit(gateway_, caf::exit_reason::user_shutdown);
    self->receive([](const caf::down_msg&) {});
    gateway_ = GatewayActor{};
  }
  cluster_.reset();
  actors_.reset();
}

}  // namespace moesaic
