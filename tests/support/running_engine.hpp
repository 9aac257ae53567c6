#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "common/engine/make_engine.hpp"

namespace moesaic::test {

using Ids = std::vector<std::int32_t>;

/// The demo model, without its vision tower.
inline LoadedModel load_demo(const std::string& compute, unsigned threads, std::size_t shards = 1) {
  ModelOptions options;
  options.model = std::string(MOESAIC_SOURCE_DIR) + "/configs/models/ernie-vl-demo";
  options.compute = compute;
  options.threads = threads;
  options.shards = shards;
  options.vision = false;
  auto model = load_model(options);
  EXPECT_TRUE(model) << model.error().what;
  return std::move(*model);
}

/// `length` ids of ordinary text, others for every salt.
inline Ids prompt_of(std::size_t length, std::uint32_t salt) {
  Ids ids;
  for (std::size_t i = 0; i < length; ++i)
    ids.push_back(static_cast<std::int32_t>(300 + (i * 7919 + salt * 104729) % 3000));
  return ids;
}

inline SamplingParams hot(std::uint64_t seed) {
  SamplingParams params;
  params.temperature = 1.0F;
  params.top_p = 0.95F;
  params.seed = seed;
  return params;
}

/// An engine and what it has told so far.
class RunningEngine {
 public:
  RunningEngine(const LoadedModel& model, EngineSettings settings,
                std::unique_ptr<ExpertBackend> experts) {
    if (settings.max_context == 0) settings.max_context = 1024;
    if (settings.kv_bytes == 0) settings.kv_bytes = std::size_t{64} << 20;
    auto engine = make_engine(model, settings, std::move(experts),
                              [this](const TokenEvents& events) { take(events); });
    EXPECT_TRUE(engine) << engine.error().what;
    engine_ = std::move(*engine);
  }

  Engine& engine() { return *engine_; }

  void submit(GenerateRequest request) {
    const auto queued =
        engine_->submit(std::make_shared<const GenerateRequest>(std::move(request)));
    EXPECT_TRUE(queued) << queued.error().what;
  }
  void submit(std::uint64_t id, Ids prompt, std::uint32_t max_tokens, SamplingParams sampling = {},
              Ids stop = {}) {
    GenerateRequest request;
    request.id = id;
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    request.sampling = sampling;
    request.stop_ids = std::move(stop);
    submit(std::move(request));
  }

  /// Waits for the end of a request; its tokens.
  Ids wait(std::uint64_t id) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return finished_.count(id) > 0; });
    return tokens_[id];
  }
  TokenEvent last(std::uint64_t id) {
    wait(id);
    const std::lock_guard lock(mutex_);
    return finished_[id];
  }
  /// Waits until a request has so many tokens.
  void wait_for_tokens(std::uint64_t id, std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return tokens_[id].size() >= count || finished_.count(id) > 0; });
  }

 private:
  void take(const TokenEvents& events) {
    const std::lock_guard lock(mutex_);
    for (const auto& event : events) {
      auto& ids = tokens_[event.id];
      EXPECT_EQ(finished_.count(event.id), 0U) << "nothing follows the last event";
      ids.insert(ids.end(), event.tokens.begin(), event.tokens.end());
      if (event.finished) finished_[event.id] = event;
    }
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::uint64_t, Ids> tokens_;
  std::map<std::uint64_t, TokenEvent> finished_;
  std::unique_ptr<Engine> engine_;  // last: its thread calls take()
};

}  // namespace moesaic::test
