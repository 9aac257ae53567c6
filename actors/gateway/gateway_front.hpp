#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "actors/gateway/gateway_service.hpp"
#include "common/base/load_state.hpp"
#include "common/http/server.hpp"

namespace moesaic {

/// What /ready says, told by those who see the cluster. Thread-safe.
class GatewayReadiness {
 public:
  ReadyState get() const { return state_; }
  /// Draining is final: afterwards nothing changes.
  void set(ReadyState state);

 private:
  std::atomic<ReadyState> state_ = ReadyState::kLoading;
};

/// A gateway actor's side to the clients: the API's routes and the server that listens. Made and
/// stopped by main.
class GatewayFront {
 public:
  GatewayFront() = default;
  ~GatewayFront();
  GatewayFront(const GatewayFront&) = delete;
  GatewayFront& operator=(const GatewayFront&) = delete;

  /// Shared with callbacks that may outlive this object.
  std::shared_ptr<GatewayReadiness> readiness() const { return readiness_; }

  /// Listens while the model is loaded: /health is well, /ready tells how far loading is, requests
  /// are refused as "model_loading".
  /// @errors those of listening
  [[nodiscard]] Result<void> announce(const HttpServerConfig& http);
  /// For /ready until `listen`. Any thread.
  void loading(std::uint64_t bytes, std::uint64_t total, const std::string& what);

  /// Requests are answered from here on.
  /// @errors those of listening
  [[nodiscard]] Result<void> listen(GatewayServiceConfig service, const HttpServerConfig& http,
                                    const GatewayActor& gateway);
  /// "http://host:port"
  const std::string& address() const { return address_; }

  /// Refuses new requests, lets open ones end for at most `drain_time`, closes. The actor must
  /// still run; nothing if this does not listen.
  void stop(caf::actor_system& actors, std::chrono::seconds drain_time);

 private:
  std::shared_ptr<GatewayReadiness> readiness_ = std::make_shared<GatewayReadiness>();
  GatewayActor gateway_;
  std::unique_ptr<GatewayService> service_;
  std::unique_ptr<HttpServer> http_;
  std::unique_ptr<HttpServer> announcer_;
  std::shared_ptr<LoadState> load_;
  std::string address_;
};

}  // namespace moesaic
