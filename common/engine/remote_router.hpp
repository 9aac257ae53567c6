#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "common/engine/expert_backend.hpp"
#include "common/engine/neighbours.hpp"
#include "common/engine/shard_fan_out.hpp"

namespace moesaic {

/// Experts behind a router service that many decoders share: two round trips a layer, one set of
/// connections to the shards. When its router dies the layer is asked of another; when none is
/// alive this decoder talks to the shards itself by the last placement (it holds the gates, too),
/// and goes back to a router with the first step after one returns. Same bits either way.
class RemoteRouter final : public ExpertBackend {
 public:
  /// @param endpoint connects to routers and, without them, to shards; used by the engine's thread
  RemoteRouter(const ModelConfig& config, std::shared_ptr<const RouterWeights> gates,
               std::shared_ptr<TopologySource> source,
               std::unique_ptr<transport::Endpoint> endpoint, ThreadPool& pool,
               FanOutOptions options = {});
  ~RemoteRouter() override;

  std::size_t slots() const override { return slots_.size(); }
  void begin_step() override;
  Result<void> submit(const MoeStep& step, std::size_t slot) override;
  Result<void> gather(const TakeSum& take, std::size_t slot) override;
  void set_taps(TapSink* taps) override;
  void interrupt() override;
  void clear_interrupt() override { interrupted_ = false; }
  bool idle() override;

 private:
  using Clock = std::chrono::steady_clock;
  struct Router {
    transport::Address address;
    transport::PeerId peer = 0;
    bool up = false;
  };
  /// One layer under way.
  struct Slot {
    enum class State : std::uint8_t {
      kIdle,
      kAsked,   ///< a router works on it
      kWaits,   ///< the router could not; asked again at `retry_at`
      kDirect,  ///< the fan-out works on it
      kDone,    ///< `answer` has the sums
    };
    State state = State::kIdle;
    MoeStep step;
    std::uint64_t sequence = 0;
    transport::PeerId peer = 0;
    std::uint16_t attempt = 0;
    Clock::time_point retry_at, timeout;
    transport::Frame answer;
    std::string failure;
    ShardFanOut::JobId job = 0;
  };

  void use(const Topology& topology);
  void refresh();
  const Router* alive(transport::PeerId but = 0) const;
  Result<void> wait_for(const TakeSum& take, std::size_t index);
  void ask(Slot& slot, transport::PeerId but = 0);
  void wait(Slot& slot, const std::string& failure);
  void receive(Clock::time_point until);
  void handle(transport::Event event);
  void take_answer(Slot& slot, transport::Frame frame);
  void forget(Slot& slot);
  void tick(Clock::time_point now);
  Clock::time_point next_tick() const;
  bool stuck(const Slot& slot) const;

  ModelConfig config_;
  std::shared_ptr<TopologySource> source_;
  std::unique_ptr<transport::Endpoint> endpoint_;
  ThreadPool& pool_;
  FanOutOptions options_;
  Dispatch dispatch_;
  ShardFanOut fan_out_;
  bool direct_ = false;  ///< the fan-out is connected
  TopologyPtr topology_;
  std::vector<Router> routers_;
  Clock::time_point connected_by_{};  ///< until then routers are waited for
  TopologySource::Subscription subscription_;
  std::array<Slot, 2> slots_;
  Neighbours neighbours_{pool_};  ///< shards and routers on this machine
  TapSink* taps_ = nullptr;
  std::atomic<bool> interrupted_ = false;
};

}  // namespace moesaic
