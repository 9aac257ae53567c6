#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "actors/supervisor/node.hpp"
#include "actors/supervisor/program.hpp"
#include "common/engine/expert_loading.hpp"
#include "common/engine/shard_service.hpp"

namespace moesaic {

/// The process that holds a set of experts and nothing else. Which ones, the placement says: they
/// are loaded in the background while others are served.
class ExpertShardProcess final : public RunningService {
 public:
  /// @errors those of opening the model, of the keys, and of listening
  [[nodiscard]] static Result<std::unique_ptr<RunningService>> start(const Settings& settings);
  ~ExpertShardProcess() override;

  std::string banner() const override { return banner_; }
  void stop() override;

 private:
  /// What the placement asks of this shard, newest last.
  struct Order {
    bool release = false;
    cluster::PlacementTable placement;
  };

  Result<void> open(const Settings& settings);
  Result<void> join(const Settings& settings);
  void take(Order order);
  void work(const std::stop_token& stop);
  void prepare(const std::stop_token& stop, const cluster::PlacementTable& placement);
  void release(const cluster::PlacementTable& placement);
  std::optional<std::string> not_ready() const;
  std::string experts_json() const;
  std::uint64_t placed_bytes(const cluster::PlacementTable& placement) const;

  std::string banner_;
  OpenedModel model_;
  std::unique_ptr<ShardService> service_;
  std::unique_ptr<Node> node_;
  EpochRange epochs_;  ///< loader thread only

  mutable std::mutex mutex_;  ///< guards what follows
  std::condition_variable_any wake_;
  std::optional<Order> prepare_, release_;  ///< the newest of each
  std::string state_ = "no placement yet";  ///< why not ready; empty: ready
  std::jthread loader_;                     ///< last: it uses the others
};

}  // namespace moesaic
