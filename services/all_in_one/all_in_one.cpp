#include "services/all_in_one/all_in_one.hpp"

#include "actors/gateway/gateway.hpp"
#include "actors/supervisor/service_settings.hpp"
#include "common/base/version.hpp"
#include "services/all_in_one/experts.hpp"

namespace moesaic {

namespace {

/// Of the vision tower's buffers.
std::uint64_t largest_picture_bytes(const ModelConfig& config, const PreprocessConfig& preprocess) {
  return vision_scratch_bytes(
      config,
      static_cast<std::uint64_t>(preprocess.image_limits.max_pixels) / (kPatchSide * kPatchSide));
}

}  // namespace

AllInOne::~AllInOne() { stop(); }

Result<std::unique_ptr<RunningService>> AllInOne::start(const Settings& settings) {
  MOESAIC_CHECK(check_numerics(settings));
  std::unique_ptr<AllInOne> made(new AllInOne);
  made->drain_time_ = std::chrono::seconds(settings.integer("limits.drain_seconds"));
  MOESAIC_CHECK(made->open(settings));
  return made;
}

Result<void> AllInOne::open(const Settings& settings) {
  MOESAIC_TRY(const auto shards, parse_experts(settings.text("engine.experts")));
  auto options = model_options(settings);
  options.shards = std::max<std::size_t>(shards, 1);
  MOESAIC_CHECK(front_.announce(http_config(settings)));
  options.on_progress = [this](std::uint64_t bytes, std::uint64_t total, const std::string& what) {
    front_.loading(bytes, total, what);
  };
  MOESAIC_TRY(auto gateway, load_gateway_model(settings, options.model, default_font()));
  auto engine = engine_settings(settings, *gateway.tokenizer);
  MOESAIC_TRY(const auto opened, open_model(options));
  engine.beside_bytes = static_cast<std::uint64_t>(settings.integer("vision.cache_bytes")) +
                        largest_picture_bytes(opened.config, gateway.preprocess);
  MOESAIC_CHECK(check_memory(opened, engine, opened.weights().bytes()));
  MOESAIC_TRY(auto model, load_model(opened, options));
  pack_ = model.pack;

  MOESAIC_TRY(exporter_, TraceExporter::start(trace_config(settings, "moesaic", "serve")));

  actors_ = std::make_unique<ActorRuntime>();
  ClusterParts parts;
  parts.model = model;
  parts.routed_shards = shards;
  parts.engine = std::move(engine);
  parts.engine.tracer = exporter_->tracer();
  parts.preprocess = gateway.preprocess;
  parts.image_limits = gateway.image_limits;
  parts.vision_cache_bytes = static_cast<std::size_t>(settings.integer("vision.cache_bytes"));
  parts.on_change = [readiness = front_.readiness()](const ClusterStatus& status) {
    readiness->set(status.ready ? ReadyState::kReady : ReadyState::kUnavailable);
  };
  MOESAIC_TRY(cluster_, Cluster::start(actors_->system(), std::move(parts)));
  gateway_ = actors_->system().spawn(moesaic::gateway, Members::kFixed, cluster_->decoder(),
                                     cluster_->vision());
  cluster_->join("gateway", "gateway-0", gateway_.address());

  write_banner(settings, model, options.model);
  GatewayServiceConfig config;
  config.model = std::move(gateway);
  config.version = {kVersion, kGitId, kBuild, ""};
  config.tracer = exporter_->tracer();
  config.max_requests = static_cast<std::size_t>(settings.integer("engine.max_running") +
                                                 settings.integer("engine.max_waiting"));
  MOESAIC_CHECK(front_.listen(std::move(config), http_config(settings), gateway_));
  banner_ += "listening     " + front_.address() + "\n";
  return {};
}

void AllInOne::write_banner(const Settings& settings, const LoadedModel& model,
                            const std::string& directory) {
  banner_ = std::string("moesaic ") + kVersion + "\n";
  banner_ += "model         " + directory + "\n";
  banner_ += "compute       " + describe_compute(model.compute, *model.pool) + "\n";
  banner_ += "experts       " + settings.text("engine.experts") + "\n";
}

void AllInOne::stop() {
  if (!actors_) return;
  front_.stop(actors_->system(), drain_time_);
  actors_->end(gateway_);
  cluster_.reset();
  actors_.reset();
}

}  // namespace moesaic
