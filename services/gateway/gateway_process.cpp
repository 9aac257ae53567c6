#include "services/gateway/gateway_process.hpp"

#include "actors/gateway/gateway.hpp"
#include "actors/supervisor/service_settings.hpp"
#include "common/base/version.hpp"
#include "common/model/fingerprint.hpp"

namespace moesaic {

Result<std::unique_ptr<RunningService>> GatewayProcess::start(const Settings& settings) {
  auto made = std::make_unique<GatewayProcess>();
  made->drain_time_ = std::chrono::seconds(settings.integer("limits.drain_seconds"));
  MOESAIC_CHECK(made->open(settings));
  return made;
}

Result<void> GatewayProcess::open(const Settings& settings) {
  const auto directory = model_directory(settings);
  MOESAIC_TRY(auto model, load_gateway_model(settings, directory, default_font()));
  MOESAIC_TRY(auto hash, model_fingerprint(directory, settings.text("model.compute")));
  MOESAIC_TRY(node_, Node::open(settings, "gateway", hash));
  MOESAIC_TRY(auto endpoint, node_->endpoint({}));

  actors_ = std::make_unique<ActorRuntime>();
  gateway_ = actors_->system().spawn(moesaic::gateway, Members::kChanging, DecoderActor{},
                                     VisionEncoderActor{});
  RemoteMembersParts parts;
  parts.gateway = gateway_;
  parts.host = node_->identity().host;
  const auto shared = std::make_shared<std::unique_ptr<transport::Endpoint>>(std::move(endpoint));
  parts.open_link = [shared](transport::Link::OnEvent on_event) {
    return std::make_unique<transport::Link>(std::move(*shared), std::move(on_event));
  };
  parts.on_ready = [readiness = front_.readiness()](bool can_serve) {
    // Once there was a cluster, a request waits for its return: see kDegraded.
    readiness->set(can_serve ? ReadyState::kReady : ReadyState::kDegraded);
  };
  members_ = actors_->system().spawn(remote_members, std::move(parts));

  NodeMember member;
  member.load = [] { return cluster::Load{}; };
  member.not_ready = [readiness = front_.readiness()]() -> std::optional<std::string> {
    switch (readiness->get()) {
      case ReadyState::kReady:
        return {};
      case ReadyState::kLoading:
        return "no decoder has answered yet";
      case ReadyState::kDraining:
        return "draining";
      default:
        return "no decoder answers that it can serve";
    }
  };
  member.on_view = [members = members_](std::shared_ptr<const cluster::View> view) {
    caf::anon_send(members, view_atom::value, ViewPtr(std::move(view)));
  };
  MOESAIC_CHECK(node_->join(settings, std::move(member)));

  banner_ = std::string("moesaic-gateway ") + kVersion + "\n";
  banner_ += "model         " + directory + "\n" + node_->describe();
  GatewayServiceConfig config;
  config.model = std::move(model);
  config.version = {kVersion, kGitId, kBuild, hash};
  config.tracer = node_->tracer();
  MOESAIC_CHECK(front_.listen(std::move(config), http_config(settings), gateway_));
  banner_ += "listening     " + front_.address() + "\n";
  return {};
}

GatewayProcess::~GatewayProcess() { stop(); }

void GatewayProcess::stop() {
  if (!actors_) return;
  front_.stop(actors_->system(), drain_time_);
  node_.reset();
  actors_->end(members_);
  actors_->end(gateway_);
  actors_.reset();
}

}  // namespace moesaic
