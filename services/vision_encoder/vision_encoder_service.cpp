#include "services/vision_encoder/vision_encoder_service.hpp"

#include "actors/supervisor/service_settings.hpp"
#include "actors/vision_encoder/vision_encoder.hpp"
#include "common/base/version.hpp"
#include "common/model/fingerprint.hpp"

namespace moesaic {
namespace {

/// Of one gateway, without an answer yet; it bounds its requests itself.
constexpr std::uint16_t kOpenQuestions = 4096;

}  // namespace

Result<std::unique_ptr<RunningService>> VisionEncoderService::start(const Settings& settings) {
  MOESAIC_CHECK(check_numerics(settings));
  auto made = std::make_unique<VisionEncoderService>();
  MOESAIC_CHECK(made->load(settings));
  return made;
}

Result<void> VisionEncoderService::load(const Settings& settings) {
  drain_time_ = std::chrono::seconds(settings.integer("limits.drain_seconds"));
  const auto options = model_options(settings);
  MOESAIC_TRY(auto hash, model_fingerprint(options.model, options.compute));
  MOESAIC_TRY(node_, Node::open(settings, "vision-encoder", std::move(hash)));
  MOESAIC_TRY(auto endpoint, node_->endpoint({"gateway"}, kOpenQuestions));
  MOESAIC_CHECK(node_->listen(*endpoint, settings.items("transport.listen"), true));

  MOESAIC_CHECK(node_->announce(settings));
  MOESAIC_TRY(const auto model, open_model(options));
  pack_ = model.pack;
  const auto bytes = model.weights().bytes_of("vision");
  MOESAIC_TRY(auto weights, model.vision([&](std::uint64_t done, const std::string& what) {
    node_->load_state().set(done, bytes, what);
  }));
  node_->load_state().done();
  VisualPipelineParts parts;
  parts.config = model.config;
  parts.weights = std::make_shared<const VisionWeights>(std::move(weights));
  parts.compute = model.vision_compute;
  parts.pool = model.pool;
  MOESAIC_TRY(parts.preprocess, PreprocessConfig::load(options.model, default_font()));
  parts.limits.max_bytes = static_cast<std::size_t>(settings.integer("limits.image_bytes"));
  parts.limits.max_pixels = settings.integer("limits.image_pixels");
  parts.tracer = node_->tracer();
  parts.cache_bytes = static_cast<std::size_t>(settings.integer("vision.cache_bytes"));

  actors_ = std::make_unique<ActorRuntime>();
  vision_ = actors_->system().spawn<caf::detached>(vision_encoder, std::move(parts));
  // Loaded and alive is all it takes.
  const auto not_ready = [] { return std::optional<std::string>(); };
  const auto shared = std::make_shared<std::unique_ptr<transport::Endpoint>>(std::move(endpoint));
  ServiceEndParts end;
  end.not_ready = not_ready;
  end.open_link = [shared](transport::Link::OnEvent on_event) {
    return std::make_unique<transport::Link>(std::move(*shared), std::move(on_event));
  };
  end_ = actors_->system().spawn(vision_end, std::move(end), vision_);

  NodeMember member;
  member.load = [] { return cluster::Load{}; };
  member.not_ready = not_ready;
  MOESAIC_CHECK(node_->join(settings, std::move(member)));
  banner_ = std::string("moesaic-vision-encoder ") + kVersion + "\n";
  banner_ += "model         " + options.model + "\n";
  banner_ += "compute       " + describe_compute(model.vision_compute, *model.pool) + "\n";
  banner_ += node_->describe();
  return {};
}

VisionEncoderService::~VisionEncoderService() { stop(); }

void VisionEncoderService::stop() {
  if (!actors_) return;
  // Gateways see the drain in their view, and give new images to others.
  node_->drain();
  actors_->end(end_);
  actors_->end(vision_);
  node_.reset();
  actors_.reset();
}

}  // namespace moesaic
