#include "actors/gateway/gateway_front.hpp"

namespace moesaic {

void GatewayReadiness::set(ReadyState state) {
  auto seen = state_.load();
  while (seen != ReadyState::kDraining && !state_.compare_exchange_weak(seen, state)) {
  }
}

GatewayFront::~GatewayFront() = default;

Result<void> GatewayFront::listen(GatewayServiceConfig service, const HttpServerConfig& http,
                                  const GatewayActor& gateway) {
  gateway_ = gateway;
  service_ = std::make_unique<GatewayService>(
      std::move(service), gateway, [readiness = readiness_] { return readiness->get(); });
  HttpRouter router;
  service_->add_routes(router);
  MOESAIC_TRY(http_, HttpServer::start(http, std::move(router), &GatewayService::refusal));
  address_ = "http://" + http.host + ":" + std::to_string(http_->port());
  return {};
}

void GatewayFront::stop(caf::actor_system& actors, std::chrono::seconds drain_time) {
  readiness_->set(ReadyState::kDraining);
  if (gateway_) {
    // Open requests go on while their answers can still be sent.
    caf::scoped_actor self(actors);
    self->request(gateway_, drain_time, drain_atom::value).receive([] {}, [](const caf::error&) {});
  }
  if (http_) http_->stop(std::chrono::seconds(1));
  http_.reset();
  service_.reset();
  gateway_ = GatewayActor{};
}

}  // namespace moesaic
