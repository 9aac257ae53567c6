#pragma once

#include <memory>

#include "actors/contracts/actors.hpp"
#include "actors/supervisor/actor_runtime.hpp"
#include "actors/supervisor/node.hpp"
#include "actors/supervisor/program.hpp"
#include "actors/transport_bridge/service_ends.hpp"
#include "common/model/pack.hpp"

namespace moesaic {

/// The process that turns images and videos into embeddings for gateways.
class VisionEncoderService final : public RunningService {
 public:
  /// @errors those of loading, of the keys, and of listening
  [[nodiscard]] static Result<std::unique_ptr<RunningService>> start(const Settings& settings);
  ~VisionEncoderService() override;

  std::string banner() const override { return banner_; }
  void stop() override;

 private:
  Result<void> load(const Settings& settings);

  std::string banner_;
  std::chrono::seconds drain_time_{};
  std::shared_ptr<const Pack> pack_;  ///< warms its pages as long as it lives
  std::unique_ptr<Node> node_;
  std::unique_ptr<ActorRuntime> actors_;
  VisionEncoderActor vision_;
  VisionEndActor end_;
};

}  // namespace moesaic
