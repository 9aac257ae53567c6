#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "common/engine/engine_metrics.hpp"
#include "common/engine/request.hpp"
#include "common/engine/scheduler.hpp"
#include "common/engine/step.hpp"
#include "common/sampling/sampler.hpp"
#include "common/trace/tracer.hpp"

namespace moesaic {

/// What an engine is made of and bounded by.
struct EngineOptions {
  SchedulerLimits limits;
  std::size_t max_context = 0;  ///< prompt + answer, tokens; 0: the model's max_positions
  std::uint32_t drawable_ids =
      0;  ///< ids >= this are padding and never drawn; 0: the whole vocabulary
  MicroBatching micro;
  Tracer tracer{};
};

/// The decoder's engine: a thread of its own that turns requests into tokens, step by step, batch
/// first. A step whose experts are out of reach is run again until they are back; each request
/// waits for that until its own deadline and then ends with kExpertUnavailable. Sleeps when there
/// is nothing to do. Public functions may be called from any thread. Tokens of a request depend on
/// the request alone, not on what else runs.
class Engine {
 public:
  /// Receives the events of a step, on the engine thread; must not block.
  using OnEvents = std::function<void(TokenEvents)>;

  Engine(const ModelConfig& config, EngineOptions options,
         std::shared_ptr<const DecoderWeights> weights, Compute compute,
         std::unique_ptr<KvCache> kv, std::unique_ptr<ExpertBackend> experts,
         std::shared_ptr<ThreadPool> pool, OnEvents on_events);
  /// Ends open requests with kUnavailable and joins the thread.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Queues a request; its events follow, the last with `finished`. One whose `generated` is
  /// already complete ends at once.
  /// @errors kOverloaded (bounded queue full), kUnavailable (draining), kContextLength,
  /// kShapeMismatch, kInvalidArgument
  [[nodiscard]] Result<void> submit(GenerateRequestPtr request);
  /// Ends a request with kCancelled at the next step; unknown ids are ignored.
  void cancel(std::uint64_t id);
  /// Refuses new requests from now on and calls `done` (on the engine thread) when the last one has
  /// ended.
  void drain(std::function<void()> done);
  EngineStatus status() const;

 private:
  void wake();
  void loop();
  bool take_inbox(TokenEvents& events);
  bool has_work() const;
  void step(TokenEvents& events);
  void end_expired(std::optional<Error> failure, TokenEvents& events);
  void draw(const std::vector<Assignment>& plan, std::span<const float> logits,
            TokenEvents& events);
  void end(std::uint64_t id, FinishReason reason, std::optional<Error> error, TokenEvents& events);
  void publish();

  ModelConfig config_;
  EngineOptions options_;
  std::shared_ptr<ThreadPool> pool_;
  std::unique_ptr<KvCache> kv_;
  std::unique_ptr<ExpertBackend> experts_;
  DecoderStep decoder_;
  OnEvents on_events_;

  // Engine thread only.
  Scheduler scheduler_;
  StepBatch batch_;
  Sampler sampler_;
  std::uint32_t step_number_ = 0;
  EngineMetrics metrics_;  ///< `waiting` on other threads, too

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<std::unique_ptr<Sequence>> inbox_;
  std::vector<std::uint64_t> cancelled_;
  std::vector<std::function<void()>> drained_;
  bool draining_ = false;
  bool stop_ = false;
  EngineStatus status_;

  std::jthread thread_;
};

}  // namespace moesaic
