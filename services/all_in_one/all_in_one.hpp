#pragma once

#include <atomic>
#include <chrono>
#include <memory>

#include "actors/gateway/gateway_service.hpp"
#include "actors/supervisor/actor_runtime.hpp"
#include "actors/supervisor/program.hpp"
#include "common/config/settings.hpp"
#include "common/http/server.hpp"
#include "services/all_in_one/cluster.hpp"

namespace moesaic {

/// Every service in one process: loads the model, spawns the actors, listens. Made, asked and
/// stopped by main.
class AllInOne final : public RunningService {
 public:
  /// Returns when requests are answered.
  /// @errors those of loading, of sizing the KV cache and of listening
  [[nodiscard]] static Result<std::unique_ptr<RunningService>> start(const Settings& settings);
  ~AllInOne() override;
  AllInOne(const AllInOne&) = delete;
  AllInOne& operator=(const AllInOne&) = delete;

  std::string banner() const override { return banner_; }
  void stop() override;

 private:
  AllInOne();
  Result<void> load(const Settings& settings);
  Result<void> listen(const Settings& settings);
  void write_banner(const Settings& settings, const LoadedModel& model,
                    const std::string& directory);

  std::chrono::seconds drain_time_{};
  std::shared_ptr<std::atomic<ReadyState>> ready_;
  std::unique_ptr<ActorRuntime> actors_;
  std::unique_ptr<Cluster> cluster_;
  GatewayActor gateway_;
  std::unique_ptr<GatewayService> service_;
  std::unique_ptr<HttpServer> http_;
  std::string banner_;
};

}  // namespace moesaic
