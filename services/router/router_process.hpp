#pragma once

#include <memory>
#include <mutex>
#include <optional>

#include "actors/supervisor/node.hpp"
#include "actors/supervisor/program.hpp"
#include "actors/supervisor/shard_prober.hpp"
#include "common/cluster/control_plane.hpp"
#include "common/cluster/registry.hpp"
#include "common/engine/model_loader.hpp"
#include "common/engine/router_service.hpp"

namespace moesaic {

/// The process that knows who is here and where the experts are (control), and that takes rows from
/// decoders to shards and back (dispatch). Control runs on the thread of the link that members
/// connect to; dispatch on the thread of its service.
class RouterProcess final : public RunningService {
 public:
  /// @errors those of the model's files, of the placement file, of the keys, and of listening
  [[nodiscard]] static Result<std::unique_ptr<RunningService>> start(const Settings& settings);
  ~RouterProcess() override;

  std::string banner() const override { return banner_; }
  void stop() override;

 private:
  Result<void> open(const Settings& settings);
  Result<void> open_control(const Settings& settings, const OpenedModel& model);
  Result<void> open_dispatch(const Settings& settings, const OpenedModel& model);
  Result<void> join(const Settings& settings);

  /// Runs something on the control plane's thread, then carries out what it wants.
  template <class Task>
  void with_control(Task task);
  void carry_out(transport::Endpoint& endpoint);
  void store_placement();

  std::string banner_;
  std::unique_ptr<Node> node_;
  std::shared_ptr<TopologySource> topology_ = std::make_shared<TopologySource>();
  std::unique_ptr<ShardProber> prober_;
  std::unique_ptr<RouterService> dispatch_;
  std::unique_ptr<cluster::Registry> registry_;
  std::optional<cluster::ControlPlane> control_;  ///< on the thread of control_link_
  std::unique_ptr<transport::Link> control_link_;
  std::mutex mutex_;
  std::optional<cluster::ControlOutput::Store> store_;  ///< guarded by mutex_
  std::unique_ptr<Ticker> ticker_;                      ///< last: it uses the others
};

}  // namespace moesaic
