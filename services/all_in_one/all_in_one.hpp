#pragma once

#include <chrono>
#include <memory>

#include "actors/gateway/gateway_front.hpp"
#include "actors/supervisor/actor_runtime.hpp"
#include "actors/supervisor/program.hpp"
#include "common/config/settings.hpp"
#include "common/trace/exporter.hpp"
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
  AllInOne() = default;
  Result<void> open(const Settings& settings);
  void write_banner(const Settings& settings, const LoadedModel& model,
                    const std::string& directory);

  std::chrono::seconds drain_time_{};
  std::unique_ptr<TraceExporter> exporter_;
  std::unique_ptr<ActorRuntime> actors_;
  std::unique_ptr<Cluster> cluster_;
  GatewayActor gateway_;
  GatewayFront front_;
  std::shared_ptr<const Pack> pack_;  ///< warms its pages as long as it lives
  std::string banner_;
};

}  // namespace moesaic
