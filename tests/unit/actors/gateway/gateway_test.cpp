#include "actors/gateway/gateway.hpp"

#include <gmock/gmock.h>

#include "tests/support/actor_fixture.hpp"
#include "tests/unit/actors/gateway/fake_parts.hpp"

namespace moesaic {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::IsEmpty;

class GatewayTest : public test::ActorFixture {
 protected:
  GatewayTest() {
    decoder = system.spawn(test::fake_decoder, engine);
    vision = system.spawn(test::fake_vision, tower);
    gateway = system.spawn(moesaic::gateway, Members::kFixed, decoder, vision);
    run();
  }
  // Open jobs refer to the test.
  ~GatewayTest() override {
    caf::anon_send_exit(gateway, caf::exit_reason::kill);
    run();
    tower->promises.clear();
  }

  void submit(std::uint64_t id, std::size_t visuals = 0, std::chrono::seconds timeout = 600s) {
    auto job = std::make_shared<GatewayJob>();
    job->request.id = id;
    job->request.prompt = {1, 2, 3};
    job->request.max_tokens = 4;
    job->request.deadline = system.clock().now() + timeout;
    for (std::size_t i = 0; i < visuals; ++i) {
      job->visuals.push_back(std::make_shared<const VisualItem>());
    }
    job->on_event = [this, id](TokenEvent event) { events[id].push_back(std::move(event)); };
    caf::anon_send(gateway, submit_atom::value, GatewayJobPtr(std::move(job)));
    run();
  }
  /// Has the vision encoder give the answers it was told.
  void run_vision() {
    caf::anon_send(vision, status_atom::value);
    run();
  }
  void cancel(std::uint64_t id) {
    caf::anon_send(gateway, cancel_atom::value, id);
    run();
  }
  void kill(const caf::actor& who) {
    caf::anon_send_exit(who, caf::exit_reason::kill);
    run();
  }
  void pass(std::chrono::seconds time) {
    auto& coordinator = static_cast<caf::scheduler::test_coordinator&>(system.scheduler());
    for (auto step = 0s; step < time; step += 1s) {
      coordinator.clock().advance_time(1s);
      coordinator.clock().trigger_timeouts();
      run();
    }
  }
  /// The code of the one and last event of a request that failed.
  Errc failure(std::uint64_t id) {
    const auto& got = events[id];
    if (got.size() != 1 || got[0].finished != FinishReason::kError || !got[0].error) {
      ADD_FAILURE() << "request " << id << " has " << got.size() << " events";
      return {};
    }
    return got[0].error->code;
  }

  test::FakeDecoderPtr engine = std::make_shared<test::FakeDecoder>();
  test::FakeVisionPtr tower = std::make_shared<test::FakeVision>();
  std::map<std::uint64_t, std::vector<TokenEvent>> events;
  DecoderActor decoder;
  VisionEncoderActor vision;
  GatewayActor gateway;
};

TEST_F(GatewayTest, FansTheTokensOfAStepOutToTheirRequests) {
  submit(1);
  submit(2);
  ASSERT_EQ(engine->requests.size(), 2U);
  engine->emit({{1, {10}, {}, {}}, {2, {20, 21}, {}, {}}, {99, {5}, {}, {}}});
  engine->emit({{2, {22}, FinishReason::kStop, {}}});
  run();
  ASSERT_EQ(events[1].size(), 1U);
  EXPECT_THAT(events[1][0].tokens, ElementsAre(10));
  ASSERT_EQ(events[2].size(), 2U);
  EXPECT_THAT(events[2][0].tokens, ElementsAre(20, 21));
  EXPECT_EQ(events[2][1].finished, FinishReason::kStop);
  EXPECT_FALSE(events.contains(99));
}

TEST_F(GatewayTest, SubmitsOnceAllVisualsAreEncodedInTheirOrder) {
  submit(1, 2);
  ASSERT_EQ(tower->items.size(), 2U);
  tower->answer(1, 20);
  run_vision();
  EXPECT_THAT(engine->requests, IsEmpty());
  tower->answer(0, 10);
  run_vision();
  ASSERT_EQ(engine->requests.size(), 1U);
  const auto& visuals = engine->requests[0]->visuals;
  ASSERT_EQ(visuals.size(), 2U);
  EXPECT_EQ(visuals[0]->rows, 10U);
  EXPECT_EQ(visuals[1]->rows, 20U);
  EXPECT_THAT(engine->requests[0]->prompt, ElementsAre(1, 2, 3));
}

TEST_F(GatewayTest, VisionErrorEndsTheRequestOnce) {
  submit(1, 2);
  tower->fail(0, {Errc::kCorrupt, "truncated"});
  tower->answer(1, 20);
  run_vision();
  EXPECT_EQ(failure(1), Errc::kCorrupt);
  EXPECT_THAT(engine->requests, IsEmpty());
}

TEST_F(GatewayTest, RefusalOfTheDecoderEndsTheRequest) {
  engine->refuse = Error{Errc::kOverloaded, "256 waiting"};
  submit(1);
  EXPECT_EQ(failure(1), Errc::kOverloaded);
}

TEST_F(GatewayTest, CancelGoesToTheDecoderWhoseEventEndsTheRequest) {
  submit(1);
  cancel(1);
  EXPECT_THAT(engine->cancelled, ElementsAre(1));
  engine->emit({{1, {}, FinishReason::kCancelled, {}}});
  run();
  ASSERT_EQ(events[1].size(), 1U);
  EXPECT_EQ(events[1][0].finished, FinishReason::kCancelled);
}

TEST_F(GatewayTest, CancelBeforeTheVisualsAreReadySubmitsNothing) {
  submit(1, 1);
  cancel(1);
  tower->answer(0, 10);
  run_vision();
  ASSERT_EQ(events[1].size(), 1U);
  EXPECT_EQ(events[1][0].finished, FinishReason::kCancelled);
  EXPECT_THAT(engine->requests, IsEmpty());
  EXPECT_THAT(engine->cancelled, IsEmpty());
}

TEST_F(GatewayTest, CancelOfAnUnknownRequestIsNothing) {
  cancel(7);
  EXPECT_THAT(engine->cancelled, IsEmpty());
}

TEST_F(GatewayTest, DeathOfTheDecoderEndsEveryRequest) {
  submit(1);
  submit(2, 1);
  kill(caf::actor_cast<caf::actor>(decoder));
  EXPECT_EQ(failure(1), Errc::kUnavailable);
  EXPECT_EQ(failure(2), Errc::kUnavailable);
  submit(3);
  EXPECT_EQ(failure(3), Errc::kUnavailable);
}

TEST_F(GatewayTest, DeathOfTheVisionEncoderEndsWhatNeedsIt) {
  submit(1);
  submit(2, 1);
  kill(caf::actor_cast<caf::actor>(vision));
  EXPECT_EQ(failure(2), Errc::kUnavailable);
  EXPECT_THAT(events[1], IsEmpty());
  submit(3, 1);
  EXPECT_EQ(failure(3), Errc::kUnavailable);
  submit(4);
  EXPECT_EQ(engine->requests.size(), 2U);
}

TEST_F(GatewayTest, NothingHangsPastItsDeadline) {
  submit(1, 0, 5s);
  submit(2, 1, 5s);
  submit(3, 0, 100s);
  pass(10s);
  EXPECT_EQ(failure(1), Errc::kDeadlineExceeded);
  EXPECT_EQ(failure(2), Errc::kDeadlineExceeded);
  EXPECT_THAT(engine->cancelled, ElementsAre(1));
  EXPECT_THAT(events[3], IsEmpty());
}

TEST_F(GatewayTest, DrainAnswersAfterTheLastRequestAndRefusesNewOnes) {
  submit(1);
  auto drained = self->request(gateway, caf::infinite, drain_atom::value);
  run();
  submit(2);
  EXPECT_EQ(failure(2), Errc::kUnavailable);
  EXPECT_TRUE(self->mailbox().empty());
  engine->emit({{1, {}, FinishReason::kLength, {}}});
  run();
  bool answered = false;
  drained.receive([&] { answered = true; },
                  [](const caf::error& error) { ADD_FAILURE() << caf::to_string(error); });
  EXPECT_TRUE(answered);
}

TEST_F(GatewayTest, DrainOfAnIdleGatewayAnswersAtOnce) {
  auto drained = self->request(gateway, caf::infinite, drain_atom::value);
  run();
  bool answered = false;
  drained.receive([&] { answered = true; },
                  [](const caf::error& error) { ADD_FAILURE() << caf::to_string(error); });
  EXPECT_TRUE(answered);
}

/// A gateway whose members come and go: two decoders and two vision encoders.
class ChangingGatewayTest : public GatewayTest {
 protected:
  ChangingGatewayTest() {
    caf::anon_send_exit(gateway, caf::exit_reason::kill);
    second_decoder = system.spawn(test::fake_decoder, second_engine);
    second_vision = system.spawn(test::fake_vision, second_tower);
    gateway =
        system.spawn(moesaic::gateway, Members::kChanging, DecoderActor{}, VisionEncoderActor{});
    run();
  }
  ~ChangingGatewayTest() override { second_tower->promises.clear(); }

  template <class Handle>
  void join(const std::string& role, const std::string& name, const Handle& handle) {
    caf::anon_send(gateway, join_atom::value, std::make_shared<const Member>(Member{role, name}),
                   handle);
    run();
  }
  void join_decoders() {
    join("decoder", "decoder-0", decoder);
    join("decoder", "decoder-1", second_decoder);
  }
  std::vector<std::int32_t> tokens(std::uint64_t id) {
    std::vector<std::int32_t> all;
    for (const auto& event : events[id])
      all.insert(all.end(), event.tokens.begin(), event.tokens.end());
    return all;
  }

  test::FakeDecoderPtr second_engine = std::make_shared<test::FakeDecoder>();
  test::FakeVisionPtr second_tower = std::make_shared<test::FakeVision>();
  DecoderActor second_decoder;
  VisionEncoderActor second_vision;
};

TEST_F(ChangingGatewayTest, RequestOfALostDecoderGoesOnAtAnotherFromItsLastToken) {
  join_decoders();
  submit(1);
  ASSERT_EQ(engine->requests.size(), 1U);
  engine->emit({{1, {10, 11}, {}, {}}});
  run();
  kill(caf::actor_cast<caf::actor>(decoder));
  ASSERT_EQ(second_engine->requests.size(), 1U);
  const auto& replay = *second_engine->requests[0];
  EXPECT_THAT(replay.prompt, ElementsAre(1, 2, 3));
  EXPECT_THAT(replay.generated, ElementsAre(10, 11));
  second_engine->emit({{replay.id, {12}, FinishReason::kStop, {}}});
  run();
  EXPECT_THAT(tokens(1), ElementsAre(10, 11, 12));
  EXPECT_EQ(events[1].back().finished, FinishReason::kStop);
  EXPECT_EQ(events[1].back().id, 1U);
}

TEST_F(ChangingGatewayTest, RequestsAreSharedOutByLoad) {
  join_decoders();
  for (std::uint64_t id = 1; id <= 6; ++id) submit(id);
  EXPECT_EQ(engine->requests.size(), 3U);
  EXPECT_EQ(second_engine->requests.size(), 3U);
}

TEST_F(ChangingGatewayTest, RequestWaitsForADecoderUntilItsDeadline) {
  submit(1, 0, 5s);
  submit(2, 0, 100s);
  pass(6s);
  EXPECT_EQ(failure(1), Errc::kUnavailable);
  EXPECT_THAT(events[2], IsEmpty());
  join("decoder", "decoder-0", decoder);
  ASSERT_EQ(engine->requests.size(), 1U);
  EXPECT_EQ(engine->requests[0]->id, 2U);
}

TEST_F(ChangingGatewayTest, DrainingDecoderGetsNothingNewAndKeepsWhatItHas) {
  join_decoders();
  submit(1);
  caf::anon_send(gateway, leave_atom::value,
                 std::make_shared<const Member>(Member{"decoder", "decoder-0"}));
  run();
  submit(2);
  submit(3);
  EXPECT_EQ(engine->requests.size(), 1U);
  EXPECT_EQ(second_engine->requests.size(), 2U);
  engine->emit({{1, {10}, FinishReason::kStop, {}}});
  run();
  EXPECT_THAT(tokens(1), ElementsAre(10));
}

TEST_F(ChangingGatewayTest, ImageOfALostEncoderIsEncodedAgain) {
  join_decoders();
  join("vision-encoder", "vision-encoder-0", vision);
  join("vision-encoder", "vision-encoder-1", second_vision);
  submit(1, 2);
  ASSERT_EQ(tower->items.size(), 1U);
  ASSERT_EQ(second_tower->items.size(), 1U);
  kill(caf::actor_cast<caf::actor>(vision));
  ASSERT_EQ(second_tower->items.size(), 2U);
  second_tower->answer(0, 20);
  second_tower->answer(1, 10);
  caf::anon_send(second_vision, status_atom::value);
  run();
  ASSERT_EQ(engine->requests.size() + second_engine->requests.size(), 1U);
  const auto& visuals = engine->requests.at(0)->visuals;
  EXPECT_EQ(visuals[0]->rows, 10U);
  EXPECT_EQ(visuals[1]->rows, 20U);
}

TEST_F(ChangingGatewayTest, FullDecoderIsPassedOver) {
  engine->refuse = Error{Errc::kOverloaded, "256 waiting"};
  join_decoders();
  submit(1);
  EXPECT_THAT(events[1], IsEmpty());
  EXPECT_EQ(second_engine->requests.size(), 1U);
}

TEST_F(ChangingGatewayTest, RequestThatKillsEveryDecoderEnds) {
  for (int i = 0; i < 20; ++i) {
    auto victim = system.spawn(test::fake_decoder, engine);
    join("decoder", "decoder-" + std::to_string(i), victim);
    if (i == 0) submit(1);
    kill(caf::actor_cast<caf::actor>(victim));
  }
  EXPECT_EQ(failure(1), Errc::kUnavailable);
  EXPECT_LE(engine->requests.size(), 8U);
}

}  // namespace
}  // namespace moesaic
