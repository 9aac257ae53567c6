#pragma once

#include <memory>

#include "actors/gateway/gateway_front.hpp"
#include "actors/supervisor/actor_runtime.hpp"
#include "actors/supervisor/node.hpp"
#include "actors/supervisor/program.hpp"
#include "actors/transport_bridge/remote_members.hpp"

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
  Result<void> open(const Settings& settings);

  std::string banner_;
  std::chrono::seconds drain_time_{};
  std::unique_ptr<Node> node_;
  std::unique_ptr<ActorRuntime> actors_;
  GatewayActor gateway_;
  RemoteMembersActor members_;
  GatewayFront front_;
};

}  // namespace moesaic
