#pragma once

#include <atomic>
#include <memory>

#include "actors/gateway/gateway_service.hpp"
#include "actors/supervisor/actor_runtime.hpp"
#include "actors/supervisor/node.hpp"
#include "actors/supervisor/program.hpp"
#include "actors/transport_bridge/remote_members.hpp"
#include "common/http/server.hpp"

namespace moesaic {

/// The process that speaks HTTP: requests in, tokens out, the work done by the cluster.
class GatewayProcess final : public RunningService {
 public:
  /// @errors those of reading the model's files, of the keys, and of listening
  [[nodiscard]] static Result<std::unique_ptr<RunningService>> start(const Settings& settings);
  ~GatewayProcess() override;

  std::string banner() const override { return banner_; }
  void stop() override;

 private:
  Result<void> load(const Settings& settings);
  Result<void> listen(const Settings& settings);

  std::string banner_;
  std::chrono::seconds drain_time_{};
  std::shared_ptr<std::atomic<ReadyState>> ready_ =
      std::make_shared<std::atomic<ReadyState>>(ReadyState::kLoading);
  std::unique_ptr<Node> node_;
  std::unique_ptr<ActorRuntime> actors_;
  GatewayActor gateway_;
  RemoteMembersActor members_;
  std::unique_ptr<GatewayService> service_;
  std::unique_ptr<HttpServer> http_;
};

}  // namespace moesaic
