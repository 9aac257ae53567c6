#include <gtest/gtest.h>

#include "actors/contracts/errors.hpp"
#include "actors/decoder/decoder.hpp"
#include "common/engine/make_engine.hpp"
#include "services/all_in_one/experts.hpp"

namespace moesaic::test {

/// All tokens of a request, and why it ended.
struct Ended {
  std::vector<std::int32_t> tokens;
  FinishReason reason{};
};
using EndedPtr = std::shared_ptr<const Ended>;

}  // namespace moesaic::test

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::test::EndedPtr)

// The decoder actor over a real engine and a real scheduler.
namespace moesaic {
namespace {

using test::Ended;
using test::EndedPtr;

class DecoderActorTest : public testing::Test {
 protected:
  struct Config : caf::actor_system_config {
    Config() {
      set("scheduler.policy", caf::atom("sharing"));
      set("scheduler.max-threads", std::size_t{2});
    }
  };

  /// Collects events and answers when a request has ended.
  struct SinkState {
    std::map<std::uint64_t, std::vector<std::int32_t>> tokens;
    std::map<std::uint64_t, FinishReason> finished;
    caf::response_promise waiting;
    std::uint64_t awaited = 0;
  };
  using Sink = TokenSink::extend<caf::replies_to<run_atom, std::uint64_t>::with<EndedPtr>>;

  static EndedPtr ended(const SinkState& state, std::uint64_t id) {
    return std::make_shared<const Ended>(Ended{state.tokens.at(id), state.finished.at(id)});
  }
  static Sink::behavior_type sink_behavior(Sink::stateful_pointer<SinkState> self) {
    return {
        [self](tokens_atom, const TokenEventsPtr& events) {
          auto& state = self->state;
          for (const auto& event : *events) {
            auto& ids = state.tokens[event.id];
            ids.insert(ids.end(), event.tokens.begin(), event.tokens.end());
            if (event.finished) state.finished[event.id] = *event.finished;
          }
          if (state.waiting.pending() && state.finished.count(state.awaited) > 0)
            state.waiting.deliver(ended(state, state.awaited));
        },
        [self](run_atom, std::uint64_t id) -> caf::result<EndedPtr> {
          auto promise = self->make_response_promise<EndedPtr>();
          self->state.waiting = promise;
          self->state.awaited = id;
          if (self->state.finished.count(id) > 0)
            self->state.waiting.deliver(ended(self->state, id));
          return promise;
        },
    };
  }

  DecoderActorTest() {
    ModelOptions options;
    options.model = std::string(MOESAIC_SOURCE_DIR) + "/configs/models/ernie-vl-demo";
    options.vision = false;
    const auto model = *load_model(options);
    EngineSettings settings;
    settings.max_context = 1024;
    settings.kv_bytes = std::size_t{32} << 20;
    decoder_ =
        system_.spawn(moesaic::decoder, EngineFactory([&, model](Engine::OnEvents on_events) {
                        return std::move(*make_engine(
                            model, settings, std::move(wire_experts(model, false)->backend),
                            std::move(on_events)));
                      }));
    sink_ = system_.spawn(sink_behavior);
    // Make sure that the factory has run while `settings` is here.
    EXPECT_EQ(status().running, 0U);
  }
  ~DecoderActorTest() override {
    self_->send_exit(decoder_, caf::exit_reason::kill);
    self_->send_exit(sink_, caf::exit_reason::kill);
  }

  EngineStatus status() {
    EngineStatus found;
    self_->request(decoder_, caf::infinite, status_atom::value)
        .receive([&](const EngineStatusPtr& s) { found = *s; },
                 [](const caf::error& error) { ADD_FAILURE() << caf::to_string(error); });
    return found;
  }
  /// The error, or nothing.
  std::optional<Error> submit(std::uint64_t id, std::uint32_t max_tokens) {
    auto request = std::make_shared<GenerateRequest>();
    request->id = id;
    request->prompt = {400, 401, 402, 403};
    request->max_tokens = max_tokens;
    std::optional<Error> refused;
    self_
        ->request(decoder_, caf::infinite, submit_atom::value,
                  GenerateRequestPtr(std::move(request)), TokenSink(sink_))
        .receive([] {}, [&](const caf::error& error) { refused = from_caf(error); });
    return refused;
  }
  Ended wait(std::uint64_t id) {
    Ended found;
    self_->request(sink_, std::chrono::seconds(60), run_atom::value, id)
        .receive([&](const EndedPtr& e) { found = *e; },
                 [](const caf::error& error) { ADD_FAILURE() << caf::to_string(error); });
    return found;
  }

  Config config_;
  caf::actor_system system_{config_};
  caf::scoped_actor self_{system_};
  DecoderActor decoder_;
  Sink sink_;
};

TEST_F(DecoderActorTest, TokensGoToTheSinkThatAskedForThem) {
  EXPECT_FALSE(submit(1, 7));
  const auto [tokens, reason] = wait(1);
  EXPECT_EQ(tokens.size(), 7U);
  EXPECT_EQ(reason, FinishReason::kLength);
}

TEST_F(DecoderActorTest, CancelAndRefusalsReachTheAsker) {
  EXPECT_FALSE(submit(1, 1000));
  const auto twice = submit(1, 5);
  ASSERT_TRUE(twice);
  EXPECT_EQ(twice->code, Errc::kInvalidArgument);
  self_->send(decoder_, cancel_atom::value, std::uint64_t{1});
  EXPECT_EQ(wait(1).reason, FinishReason::kCancelled);
  const auto long_one = submit(2, 2000);
  ASSERT_TRUE(long_one);
  EXPECT_EQ(long_one->code, Errc::kContextLength);
  EXPECT_NE(long_one->what.find("2000"), std::string::npos) << long_one->what;
}

TEST_F(DecoderActorTest, ASinkThatDiesEndsItsRequests) {
  EXPECT_FALSE(submit(1, 1000));
  self_->monitor(sink_);
  self_->send_exit(sink_, caf::exit_reason::kill);
  self_->receive([](const caf::down_msg&) {});
  for (int i = 0; i < 1000 && status().running + status().waiting > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(status().running + status().waiting, 0U);
  EXPECT_LT(status().generated_tokens, 1000U);
}

TEST_F(DecoderActorTest, DrainAnswersAfterTheLastRequest) {
  EXPECT_FALSE(submit(1, 50));
  bool drained = false;
  self_->request(decoder_, std::chrono::seconds(60), drain_atom::value)
      .receive([&] { drained = true; },
               [](const caf::error& error) { ADD_FAILURE() << caf::to_string(error); });
  EXPECT_TRUE(drained);
  EXPECT_EQ(wait(1).tokens.size(), 50U) << "the open request was finished first";
  const auto refused = submit(2, 5);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->code, Errc::kUnavailable);
}

}  // namespace
}  // namespace moesaic
