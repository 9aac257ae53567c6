#pragma once

#include <memory>

#include "actors/contracts/actors.hpp"
#include "actors/supervisor/actor_runtime.hpp"
#include "actors/supervisor/node.hpp"
#include "actors/supervisor/program.hpp"
#include "actors/supervisor/shard_prober.hpp"
#include "actors/transport_bridge/service_ends.hpp"
#include "common/engine/make_engine.hpp"
#include "common/engine/topology.hpp"

namespace moesaic {

/// The process that turns prompts into tokens: attention and KV cache here, experts elsewhere.
class DecoderService final : public RunningService {
 public:
  /// @errors those of loading, of sizing the KV cache, of the keys, and of listening
  [[nodiscard]] static Result<std::unique_ptr<RunningService>> start(const Settings& settings);
  ~DecoderService() override;

  std::string banner() const override { return banner_; }
  void stop() override;

 private:
  Result<void> load(const Settings& settings);
  Result<std::unique_ptr<ExpertBackend>> open_experts(const Settings& settings,
                                                      const OpenedModel& model);
  Result<std::unique_ptr<Engine>> open_engine(const Settings& settings, const OpenedModel& model);
  Result<void> join(const Settings& settings);

  std::string banner_;
  std::chrono::seconds drain_time_{};
  std::shared_ptr<const Pack> pack_;  ///< warms its pages as long as it lives
  std::unique_ptr<Node> node_;
  std::shared_ptr<TopologySource> topology_ = std::make_shared<TopologySource>();
  std::unique_ptr<ShardProber> prober_;
  /// What the engine tells; set when the actor that takes it exists.
  std::shared_ptr<Engine::OnEvents> events_ = std::make_shared<Engine::OnEvents>();
  std::unique_ptr<ActorRuntime> actors_;
  DecoderActor decoder_;
  DecoderEndActor end_;
};

}  // namespace moesaic
