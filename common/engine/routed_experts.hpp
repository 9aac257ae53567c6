#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <optional>

#include "common/engine/expert_backend.hpp"
#include "common/engine/neighbours.hpp"
#include "common/engine/shard_fan_out.hpp"

namespace moesaic {

/// Router embedded in the decoder: talks to all shards directly, one round trip a layer, all shards
/// in parallel. Shards answer maximal nodes of the expert tree, and the tree is finished here, so
/// the bits equal LocalExperts', whichever replicas answer and however often it takes.
class RoutedExperts final : public ExpertBackend {
 public:
  /// @param source   placements; taken over when a step begins
  /// @param endpoint connects to shards; used by the engine's thread from the first call on
  RoutedExperts(const ModelConfig& config, std::shared_ptr<const RouterWeights> gates,
                std::shared_ptr<TopologySource> source,
                std::unique_ptr<transport::Endpoint> endpoint, ThreadPool& pool,
                FanOutOptions options = {});
  ~RoutedExperts() override;

  std::size_t slots() const override { return slots_.size(); }
  void begin_step() override;
  Result<void> submit(const MoeStep& step, std::size_t slot) override;
  Result<void> gather(const TakeSum& take, std::size_t slot) override;
  void set_taps(TapSink* taps) override { dispatch_.set_taps(taps); }
  void interrupt() override;
  void clear_interrupt() override { interrupted_ = false; }
  bool idle() override;

 private:
  Result<void> wait_for(ShardFanOut::JobId job);

  Dispatch dispatch_;
  std::shared_ptr<TopologySource> source_;
  std::unique_ptr<transport::Endpoint> endpoint_;
  ThreadPool& pool_;
  ShardFanOut fan_out_;
  TopologySource::Subscription subscription_;
  std::array<std::optional<ShardFanOut::JobId>, 2> slots_;
  Neighbours neighbours_{pool_};  ///< shards on this machine
  std::atomic<bool> interrupted_ = false;
};

}  // namespace moesaic
