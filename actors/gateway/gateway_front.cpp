#include "actors/gateway/gateway_front.hpp"

#include "common/api/api_error.hpp"
#include "common/api/responses.hpp"

namespace moesaic {
namespace {

const HttpHeaders kJson{{"Content-Type", "application/json"}};

std::string loading_body(const LoadState& load) {
  const auto loading = load.json();
  return std::string(R"({"ready":false)") + (loading.empty() ? "" : ",\"loading\":" + loading) +
         "}";
}

}  // namespace

void GatewayReadiness::set(ReadyState state) {
  auto seen = state_.load();
  while (seen != ReadyState::kDraining && !state_.compare_exchange_weak(seen, state)) {
  }
}

GatewayFront::~GatewayFront() = default;

Result<void> GatewayFront::announce(const HttpServerConfig& http) {
  // A port that the system chooses is chosen once the model is there.
  if (http.port == 0) return {};
  load_ = std::make_shared<LoadState>();
  HttpRouter router;
  router.add("GET", "/health", [](const HttpRequest&, auto responder) {
    responder->send(HttpAnswer{200, kJson, R"({"status":"ok"})"});
  });
  router.add("GET", "/ready", [load = load_](const HttpRequest&, auto responder) {
    responder->send(HttpAnswer{503, kJson, loading_body(*load)});
  });
  const auto loading = [](const HttpRequest&, auto responder) {
    responder->send(error_answer({ApiCode::kLoading, "the model is still loading", {}, {}, 1}));
  };
  for (const auto* path : {"/v1/chat/completions", "/v1/completions"})
    router.add("POST", path, loading);
  router.add("GET", "/v1/models", loading);
  MOESAIC_TRY(announcer_, HttpServer::start(http, std::move(router), &GatewayService::refusal));
  return {};
}

void GatewayFront::loading(std::uint64_t bytes, std::uint64_t total, const std::string& what) {
  if (load_) load_->set(bytes, total, what);
}

Result<void> GatewayFront::listen(GatewayServiceConfig service, const HttpServerConfig& http,
                                  const GatewayActor& gateway) {
  gateway_ = gateway;
  service_ = std::make_unique<GatewayService>(
      std::move(service), gateway, [readiness = readiness_] { return readiness->get(); });
  HttpRouter router;
  service_->add_routes(router);
  if (announcer_) announcer_->stop(std::chrono::milliseconds(100));
  announcer_.reset();
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
