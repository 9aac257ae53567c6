#include "common/cluster/control_plane.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "common/cluster/view_json.hpp"
#include "common/transport/failure.hpp"
#include "tests/unit/cluster/simulated_cluster.hpp"

namespace moesaic::cluster {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;
using transport::Event;
using transport::Frame;
using transport::FrameType;
using transport::PeerId;

/// A leading router and members that speak when told to.
class ControlPlaneTest : public testing::Test {
 protected:
  void SetUp() override { make({}); }

  void make(ControlConfig config) {
    config.name = "router-0";
    config.geometry = test::small_geometry();
    config.model_hash = "m1";
    config.version = "0.4.0";
    config.wall_clock_us = [this] { return wall_us; };
    auto made = ControlPlane::make(std::move(config));
    ASSERT_TRUE(made) << made.error().what;
    control.emplace(std::move(*made));
    lead(1);
  }
  void lead(std::uint64_t term) {
    RegistryEvent event;
    event.kind = RegistryEvent::Kind::kLeading;
    event.term = term;
    control->on_registry(event, now);
    collect();
  }
  void follow(const std::string& leader) {
    RegistryEvent event;
    event.kind = RegistryEvent::Kind::kFollowing;
    event.leader = leader;
    control->on_registry(event, now);
    collect();
  }
  static Member member(const std::string& role, const std::string& name,
                       std::uint32_t incarnation = 1) {
    Member m;
    m.role = role;
    m.name = name;
    m.incarnation = incarnation;
    m.host = "h" + std::to_string(incarnation);
    m.admin = "http://10.0.0." + std::to_string(incarnation) + ":8083";
    m.model_hash = "m1";
    m.version = "0.4.0";
    m.wire_version = 1;
    m.clock_us = 1'700'000'000'000'000;
    return m;
  }
  void up(PeerId peer, const std::string& role, const std::string& name) {
    Event event;
    event.kind = Event::Kind::kUp;
    event.peer = peer;
    event.identity.role = role;
    event.identity.name = name;
    control->on_event(event, now);
    collect();
  }
  void down(PeerId peer) {
    Event event;
    event.kind = Event::Kind::kDown;
    event.peer = peer;
    event.detail = "reset by peer";
    control->on_event(event, now);
    collect();
  }
  void receive(PeerId peer, Frame frame) {
    Event event;
    event.kind = Event::Kind::kFrame;
    event.peer = peer;
    event.frame = std::move(frame);
    control->on_event(event, now);
    collect();
  }
  /// Connects and registers; the refusal, or empty.
  std::string join(PeerId peer, const Member& m) {
    up(peer, m.role, m.name);
    sent.clear();
    receive(peer, make_message(FrameType::kRegister, m));
    const auto& answer = sent.at(peer).front();
    return answer.type == FrameType::kFailure ? transport::read_failure(answer).what : "";
  }
  void beat(PeerId peer, bool ready = true) {
    Load load;
    load.ready = ready;
    receive(peer, make_message(FrameType::kHeartbeat, load));
  }
  void pass(milliseconds time, const std::vector<PeerId>& beating = {}) {
    for (auto left = time; left > milliseconds(0); left -= milliseconds(100)) {
      now += milliseconds(100);
      for (const auto peer : beating) beat(peer);
      control->tick(now);
      collect();
    }
  }
  void collect() {
    auto out = control->take_output();
    for (auto& message : out.messages) sent[message.to].push_back(std::move(message.frame));
    for (auto& line : out.log) log.push_back(line.text);
  }
  bool alive(const std::string& role, const std::string& name) {
    const auto* state = control->view()->find(role, name);
    return state != nullptr && state->alive;
  }

  ControlPlane::Clock::time_point now{std::chrono::hours(1)};
  std::int64_t wall_us = 1'700'000'000'000'000;
  std::optional<ControlPlane> control;
  std::map<PeerId, std::vector<Frame>> sent;
  std::vector<std::string> log;
};

TEST_F(ControlPlaneTest, ARegistrationIsALeaseThatHeartbeatsRenew) {
  EXPECT_EQ(join(1, member("decoder", "d0")), "");
  ASSERT_EQ(sent[1].front().type, FrameType::kLease);
  const auto lease = transport::read_message<Lease>(sent[1].front());
  EXPECT_EQ(lease->lease_ms, 1000U);
  EXPECT_TRUE(lease->leader);
  EXPECT_EQ(lease->term, 1U);
  pass(milliseconds(3000), {1});
  EXPECT_TRUE(alive("decoder", "d0"));
  pass(milliseconds(1000));
  EXPECT_TRUE(alive("decoder", "d0"));
  pass(milliseconds(100));
  EXPECT_FALSE(alive("decoder", "d0"));
  EXPECT_EQ(log.back(), "decoder \"d0\" is lost: no heartbeat for 1000 ms");
  beat(1);
  EXPECT_TRUE(alive("decoder", "d0")) << "it was only slow";
}

TEST_F(ControlPlaneTest, AClosedConnectionEndsTheLeaseAndAMinuteLaterItIsForgotten) {
  join(1, member("decoder", "d0"));
  down(1);
  EXPECT_FALSE(alive("decoder", "d0"));
  EXPECT_EQ(log.back(), "decoder \"d0\" is lost: reset by peer");
  pass(milliseconds(60'000));
  EXPECT_NE(control->view()->find("decoder", "d0"), nullptr);
  pass(milliseconds(200));
  EXPECT_EQ(control->view()->find("decoder", "d0"), nullptr);
}

TEST_F(ControlPlaneTest, ARouterThatWasStoppedBlamesNobody) {
  join(1, member("decoder", "d0"));
  pass(milliseconds(500), {1});
  now += std::chrono::seconds(30);
  control->tick(now);
  collect();
  EXPECT_TRUE(alive("decoder", "d0"));
}

TEST_F(ControlPlaneTest, TwoOfOneNameAreToldApartAndTheLaterIsRefused) {
  EXPECT_EQ(join(1, member("expert-shard", "s0", 1)), "");
  EXPECT_EQ(join(2, member("expert-shard", "s0", 2)),
            "expert-shard \"s0\" of incarnation 2 on host h2, http://10.0.0.2:8083 is refused: one "
            "of incarnation 1 on host h1, http://10.0.0.1:8083 is alive");
  const auto lines = log.size();
  receive(2, make_message(FrameType::kRegister, member("expert-shard", "s0", 2)));
  EXPECT_EQ(log.size(), lines) << "told once";
  EXPECT_EQ(control->view()->find("expert-shard", "s0")->member.incarnation, 1U);

  down(1);
  receive(2, make_message(FrameType::kRegister, member("expert-shard", "s0", 2)));
  EXPECT_EQ(control->view()->find("expert-shard", "s0")->member.incarnation, 2U);
  EXPECT_TRUE(alive("expert-shard", "s0"));
}

TEST_F(ControlPlaneTest, AnOlderLifeThatComesLateIsStale) {
  join(1, member("expert-shard", "s0", 2));
  down(1);
  EXPECT_EQ(join(2, member("expert-shard", "s0", 1)),
            "expert-shard \"s0\" of incarnation 1 on host h1, http://10.0.0.1:8083 is refused: it "
            "is over since incarnation 2 on host h2, http://10.0.0.2:8083 has registered");
}

TEST_F(ControlPlaneTest, WhatDoesNotFitIsRefusedWithBothSides) {
  struct Case {
    std::function<void(Member&)> change;
    std::string text;
  };
  const std::vector<Case> cases = {
      {[](Member& m) { m.model_hash = "m2"; },
       "decoder \"d0\" serves model m2, router \"router-0\" m1"},
      {[](Member& m) { m.version = "0.6.0"; },
       "decoder \"d0\" is version 0.6.0, router \"router-0\" 0.4.0: at most one minor release "
       "apart"},
      {[](Member& m) { m.version = "1.4.0"; },
       "decoder \"d0\" is version 1.4.0, router \"router-0\" 0.4.0: at most one minor release "
       "apart"},
      {[](Member& m) { m.version = "new"; },
       "decoder \"d0\" is version new, router \"router-0\" 0.4.0: at most one minor release apart"},
      {[](Member& m) { m.wire_version = 3; },
       "decoder \"d0\" speaks wire version 3, router \"router-0\" 1: at most one apart"},
  };
  PeerId peer = 10;
  for (const auto& c : cases) {
    auto m = member("decoder", "d0");
    c.change(m);
    EXPECT_EQ(join(peer++, m), c.text);
  }
  for (const auto* version : {"0.3.9", "0.5.0"}) {
    auto m = member("decoder", std::string("d") + version[2]);
    m.version = version;
    EXPECT_EQ(join(peer++, m), "") << "one release apart works together";
  }
  auto tool_like = member("gateway", "g0");
  tool_like.model_hash = "";
  EXPECT_EQ(join(peer++, tool_like), "") << "a gateway may hold no weights";
  EXPECT_EQ(join(peer++, member("decoder", "D 0")),
            "decoder: a name is 1 to 64 of a-z 0-9 . - and not \"D 0\"");
  EXPECT_EQ(join(peer++, member("tool", "t")), "\"tool\" is not a role of members");
}

TEST_F(ControlPlaneTest, NobodyRegistersAsSomebodyElse) {
  up(1, "expert-shard", "s0");
  receive(1, make_message(FrameType::kRegister, member("decoder", "d0")));
  EXPECT_EQ(transport::read_failure(sent[1].front()).what,
            "decoder \"d0\" registers on the connection of expert-shard \"s0\"");
}

TEST_F(ControlPlaneTest, ClocksThatDifferAreToldOnceAndAccepted) {
  auto m = member("decoder", "d0");
  m.clock_us = wall_us + 7'250'000;
  EXPECT_EQ(join(1, m), "");
  EXPECT_EQ(log.back(),
            "clocks are 7.2 s apart: decoder \"d0\" says 2023-11-14T22:13:27.250Z, router "
            "\"router-0\" 2023-11-14T22:13:20.000Z; leases and deadlines do not depend on it");
  const auto lines = log.size();
  receive(1, make_message(FrameType::kRegister, m));
  EXPECT_EQ(log.size(), lines);
}

TEST_F(ControlPlaneTest, OnlyToolsPlaceAndOnlyTheLeaderDoes) {
  up(1, "expert-shard", "s0");
  receive(1, make_message(FrameType::kPlace, Place{"shards: []"}));
  EXPECT_EQ(transport::read_failure(sent[1].front()).what, "only tools place and drain");
  follow("router-1");
  up(2, "tool", "admin");
  receive(2, make_message(FrameType::kPlace, Place{"shards: []"}));
  EXPECT_EQ(transport::read_failure(sent[2].front()).what,
            "router \"router-0\" does not lead, router \"router-1\" does");
}

TEST_F(ControlPlaneTest, ABadPlacementIsRefusedAndNothingIsStored) {
  join(1, member("expert-shard", "s0"));
  pass(milliseconds(1500), {1});
  receive(1, make_message(FrameType::kPrepared, Prepared{1, {1, 2, 3}, ""}));
  const auto placed = control->place("shards:\n  - match: {node: x}\n    experts: [{}]\n", now);
  ASSERT_FALSE(placed);
  EXPECT_EQ(placed.error().what,
            "placement:2: 1 shard with {node: x} needed, 0 match; registered: s0 {}");
  EXPECT_FALSE(control->take_output().store);
}

TEST_F(ControlPlaneTest, SaysWhatIsMissing) {
  ControlConfig config;
  config.shards = 2;
  config.vision = true;
  make(config);
  EXPECT_EQ(control->view()->missing, "expert-shard (0 of 2); decoder; vision-encoder");
  join(1, member("expert-shard", "s0"));
  join(2, member("decoder", "d0"));
  pass(milliseconds(2000), {1, 2});
  EXPECT_EQ(control->view()->missing, "expert-shard (1 of 2); vision-encoder");
  join(3, member("expert-shard", "s1"));
  pass(milliseconds(2000), {1, 2, 3});
  EXPECT_EQ(control->view()->missing, "expert-shard (loading experts); vision-encoder");
  receive(1, make_message(FrameType::kPrepared, Prepared{1, {0, 1, 2, 3}, ""}));
  receive(3, make_message(FrameType::kPrepared, Prepared{1, {0, 1, 2, 3}, ""}));
  join(4, member("vision-encoder", "v0"));
  beat(4);
  EXPECT_EQ(control->view()->missing, "");
  EXPECT_TRUE(control->view()->ready);
  down(3);
  EXPECT_EQ(control->view()->missing, "expert-shard (18 experts of s1)");
  beat(2, false);
  EXPECT_EQ(control->view()->missing, "expert-shard (18 experts of s1); decoder");
}

TEST_F(ControlPlaneTest, WaitsForTheShardsTheFileNeeds) {
  ControlConfig config;
  config.placement_name = "p.yaml";
  config.placement_yaml = "shards:\n  - match: {node: a}\n    replicas: 2\n    experts: [{}]\n";
  make(config);
  auto first = member("expert-shard", "s0");
  first.labels["node"] = "a";
  join(1, first);
  pass(milliseconds(1500), {1});
  EXPECT_EQ(control->view()->missing, "expert-shard (1 of 2); decoder");
  auto second = member("expert-shard", "s1");
  second.labels["node"] = "b";
  join(2, second);
  pass(milliseconds(1500), {1, 2});
  EXPECT_EQ(control->view()->missing,
            "p.yaml:2: 2 shards with {node: a} needed, 1 matches; registered: s0 {node: a}, s1 "
            "{node: b}; decoder");
}

TEST_F(ControlPlaneTest, AFileThatCannotWorkEndsTheStart) {
  ControlConfig config;
  config.geometry = test::small_geometry();
  config.placement_name = "p.yaml";
  config.placement_yaml = "shards:\n  - match: {node: a}\n    experts: [{modality: text}]\n";
  const auto made = ControlPlane::make(config);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().what, "p.yaml: no shard holds layers 1-3 vision experts 0-3");
}

TEST_F(ControlPlaneTest, ANewLeaderSaysNothingBeforeItKnowsWhatIsInForce) {
  join(1, member("decoder", "d0"));
  sent.clear();
  pass(milliseconds(2500), {1});
  for (const auto& frame : sent[1]) EXPECT_NE(frame.type, FrameType::kView);
  pass(milliseconds(1000), {1});
  EXPECT_THAT(sent[1], testing::Contains(testing::Field(&Frame::type, FrameType::kView)))
      << "but not for ever";
}

TEST_F(ControlPlaneTest, AFollowerKnowsItsMembersAndPushesNothing) {
  follow("router-1");
  join(1, member("expert-shard", "s0"));
  sent.clear();
  pass(milliseconds(5000), {1});
  for (const auto& frame : sent[1]) {
    ASSERT_EQ(frame.type, FrameType::kLease);
    EXPECT_FALSE(transport::read_message<Lease>(frame)->leader);
  }
  EXPECT_EQ(control->view()->leader, "router-1");
  EXPECT_FALSE(control->view()->ready);
  lead(7);
  sent.clear();
  pass(milliseconds(1500), {1});
  EXPECT_THAT(sent[1], testing::Contains(testing::Field(&Frame::type, FrameType::kPrepare)));
}

TEST_F(ControlPlaneTest, VersionsGrowFromLeaderToLeader) {
  join(1, member("expert-shard", "s0"));
  pass(milliseconds(1500), {1});
  receive(1, make_message(FrameType::kPrepared, Prepared{1, {1, 2, 3}, ""}));
  const auto first = control->view()->version;
  EXPECT_GT(first, 0U);
  wall_us += 5'000'000;
  make({});
  join(1, member("expert-shard", "s0"));
  pass(milliseconds(1500), {1});
  receive(1, make_message(FrameType::kPrepared, Prepared{1, {1, 2, 3}, ""}));
  EXPECT_GT(control->view()->version, first);
}

TEST_F(ControlPlaneTest, MalformedAndForeignFramesAreAnsweredNotObeyed) {
  up(1, "decoder", "d0");
  Frame frame;
  frame.type = FrameType::kRegister;
  frame.sequence = 5;
  receive(1, std::move(frame));
  ASSERT_EQ(sent[1].size(), 1U);
  EXPECT_EQ(sent[1][0].type, FrameType::kFailure);
  EXPECT_EQ(sent[1][0].sequence, 5U);
  Frame rows;
  rows.type = FrameType::kExpertRows;
  receive(1, std::move(rows));
  EXPECT_EQ(transport::read_failure(sent[1][1]).what,
            "frame of type 16 is not for a router's control");
  Frame failure;
  failure.type = FrameType::kFailure;
  receive(1, std::move(failure));
  EXPECT_EQ(sent[1].size(), 2U) << "an error is not answered by one";
}

TEST_F(ControlPlaneTest, TheViewAsJsonNamesMembersAndRanges) {
  join(1, member("expert-shard", "s0"));
  beat(1);
  pass(milliseconds(1500), {1});
  receive(1, make_message(FrameType::kPrepared, Prepared{1, {1, 2, 3}, ""}));
  const auto json = boost::json::parse(to_json(*control->view()));
  EXPECT_EQ(json.at("leader").as_string(), "router-0");
  EXPECT_EQ(json.at("missing").as_string(), "decoder");
  EXPECT_EQ(json.at("members").at(0).at("admin").as_string(), "http://10.0.0.1:8083");
  EXPECT_TRUE(json.at("members").at(0).at("load").at("ready").as_bool());
  EXPECT_EQ(json.at("placement").at("epoch").as_int64(), 1);
  const auto& shard = json.at("placement").at("shards").at(0);
  EXPECT_EQ(shard.at("count").as_int64(), 36);
  EXPECT_EQ(boost::json::serialize(shard.at("experts")),
            R"([{"layers":"1-3","modality":"text","experts":"0-7"},)"
            R"({"layers":"1-3","modality":"vision","experts":"0-3"}])");
}

}  // namespace
}  // namespace moesaic::cluster
