#include "common/cluster/membership.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/transport/failure.hpp"

namespace moesaic::cluster {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::IsEmpty;
using transport::Event;
using transport::Frame;
using transport::FrameType;

class MembershipTest : public testing::Test {
 protected:
  using Sent = std::pair<transport::PeerId, FrameType>;

  Membership::Callbacks callbacks() {
    Membership::Callbacks c;
    c.send = [this](transport::PeerId peer, Frame frame) {
      sent.emplace_back(peer, frame.type);
      frames.push_back(std::move(frame));
    };
    c.on_view = [this](const std::shared_ptr<const View>& view) { views.push_back(view->version); };
    c.on_prepare = [this](const PlacementTable& table) { prepares.push_back(table.epoch); };
    c.on_drain = [this] { ++drains; };
    c.on_refused = [this](const Error& error) { refusals.push_back(error.what); };
    return c;
  }
  static Member self() {
    Member member;
    member.role = "expert-shard";
    member.name = "s0";
    return member;
  }
  void up(transport::PeerId peer) {
    Event event;
    event.kind = Event::Kind::kUp;
    event.peer = peer;
    membership.on_event(event, now);
  }
  void down(transport::PeerId peer) {
    Event event;
    event.kind = Event::Kind::kDown;
    event.peer = peer;
    membership.on_event(event, now);
  }
  void receive(transport::PeerId peer, Frame frame) {
    Event event;
    event.kind = Event::Kind::kFrame;
    event.peer = peer;
    event.frame = std::move(frame);
    membership.on_event(event, now);
  }
  void lease(transport::PeerId peer, bool leader) {
    receive(peer, make_message(FrameType::kLease, Lease{1, leader, 1000}));
  }
  void view(transport::PeerId peer, std::uint64_t term, std::uint64_t version,
            std::uint32_t epoch = 1) {
    View view;
    view.term = term;
    view.version = version;
    view.placement.epoch = epoch;
    receive(peer, make_message(FrameType::kView, view));
  }
  void tick(milliseconds later) {
    now += later;
    sent.clear();
    membership.tick(now);
  }

  Membership::Clock::time_point now{std::chrono::hours(1)};
  std::vector<Sent> sent;
  std::vector<Frame> frames;
  std::vector<std::uint64_t> views;
  std::vector<std::uint32_t> prepares;
  std::vector<std::string> refusals;
  int drains = 0;
  Membership membership{self(), {}, callbacks()};
};

TEST_F(MembershipTest, RegistersWithEveryRouterUntilItHasALeaseThenRenewsIt) {
  up(1);
  up(2);
  EXPECT_THAT(sent, ElementsAre(Sent{1, FrameType::kRegister}, Sent{2, FrameType::kRegister}));
  lease(1, true);
  EXPECT_TRUE(membership.registered());
  tick(milliseconds(200));
  EXPECT_THAT(sent, ElementsAre(Sent{1, FrameType::kHeartbeat}, Sent{2, FrameType::kRegister}));
  tick(milliseconds(100));
  EXPECT_THAT(sent, IsEmpty()) << "heartbeats come every 200 ms";
}

TEST_F(MembershipTest, ARouterThatHasForgottenUsIsToldAgainAtOnce) {
  up(1);
  lease(1, true);
  sent.clear();
  receive(1, transport::make_failure({Errc::kNotFound, "nobody has registered"}, 0));
  EXPECT_THAT(sent, ElementsAre(Sent{1, FrameType::kRegister}));
  EXPECT_THAT(refusals, IsEmpty());
}

TEST_F(MembershipTest, ARefusalIsToldOnceAndTriedAgain) {
  up(1);
  for (int i = 0; i < 3; ++i) {
    receive(1, transport::make_failure({Errc::kUnavailable, "another is alive"}, 0));
    tick(milliseconds(200));
    EXPECT_THAT(sent, ElementsAre(Sent{1, FrameType::kRegister}));
  }
  EXPECT_THAT(refusals, ElementsAre("another is alive"));
  EXPECT_FALSE(membership.registered());
}

TEST_F(MembershipTest, KeepsTheNewestViewByTermThenVersion) {
  up(1);
  up(2);
  view(1, 1, 5);
  view(1, 1, 4);
  view(2, 2, 1);
  view(1, 1, 9);
  view(2, 2, 2);
  EXPECT_THAT(views, ElementsAre(5, 1, 2));
  EXPECT_EQ(membership.view()->term, 2U);
}

TEST_F(MembershipTest, KeepsTheLastPlacementWhileANewLeaderHasNone) {
  up(1);
  view(1, 1, 5, 3);
  view(1, 2, 6, 0);
  EXPECT_EQ(membership.view()->version, 6U);
  EXPECT_EQ(membership.view()->placement.epoch, 3U);
}

TEST_F(MembershipTest, ALostLeaderIsNoticedAndItsViewKept) {
  up(1);
  up(2);
  EXPECT_TRUE(membership.leader_lost()) << "nobody has been heard of yet";
  lease(1, true);
  lease(2, false);
  view(1, 1, 5);
  EXPECT_FALSE(membership.leader_lost());
  tick(milliseconds(1001));
  lease(2, false);
  EXPECT_TRUE(membership.leader_lost());
  down(1);
  EXPECT_EQ(membership.view()->version, 5U);
  lease(2, true);
  EXPECT_FALSE(membership.leader_lost());
}

TEST_F(MembershipTest, AChangeOfReadinessDoesNotWaitForTheHeartbeat) {
  up(1);
  lease(1, true);
  tick(milliseconds(200));
  Load load;
  load.ready = true;
  membership.set_load(load);
  tick(milliseconds(10));
  EXPECT_THAT(sent, ElementsAre(Sent{1, FrameType::kHeartbeat}));
  EXPECT_TRUE(transport::read_message<Load>(frames.back())->ready);
}

TEST_F(MembershipTest, AnswersWhoAskedAndOnlyOncePerVersion) {
  up(1);
  up(2);
  Prepare prepare;
  prepare.placement.epoch = 4;
  receive(2, make_message(FrameType::kPrepare, prepare));
  EXPECT_THAT(prepares, ElementsAre(4U));
  sent.clear();
  membership.prepared({4, {1, 2}, ""});
  membership.prepared({3, {1, 2}, ""});  // nobody has asked
  EXPECT_THAT(sent, ElementsAre(Sent{2, FrameType::kPrepared}));

  view(1, 1, 5);
  sent.clear();
  membership.adopted(5);
  membership.adopted(5);
  EXPECT_THAT(sent, ElementsAre(Sent{1, FrameType::kAdopted}));
  sent.clear();
  view(1, 1, 5);  // the router has not heard
  EXPECT_THAT(sent, ElementsAre(Sent{1, FrameType::kAdopted}));
}

TEST_F(MembershipTest, HeartbeatsTellTheNewestPlacementSoThatANewLeaderNumbersOn) {
  up(1);
  lease(1, true);
  view(1, 1, 5, 7);
  tick(milliseconds(200));
  EXPECT_EQ(transport::read_message<Load>(frames.back())->epoch, 7U);
}

TEST_F(MembershipTest, ALeaderThatNumbersFromOneAgainIsAnswered) {
  up(1);
  Prepare prepare;
  for (const auto epoch : {6U, 7U, 8U, 9U, 1U}) {
    prepare.placement.epoch = epoch;
    receive(1, make_message(FrameType::kPrepare, prepare));
  }
  sent.clear();
  membership.prepared({1, {1, 2}, ""});
  EXPECT_THAT(sent, ElementsAre(Sent{1, FrameType::kPrepared}));
}

TEST_F(MembershipTest, MalformedFramesChangeNothing) {
  up(1);
  Frame frame;
  for (const auto type : {FrameType::kLease, FrameType::kView, FrameType::kPrepare,
                          FrameType::kRelease, FrameType::kExpertRows}) {
    frame.type = type;
    frame.tensors.clear();
    frame.tensors.emplace_back(DType::kU8, std::vector<std::int64_t>{3});
    receive(1, std::move(frame));
  }
  EXPECT_FALSE(membership.registered());
  EXPECT_EQ(membership.view(), nullptr);
  // A table whose owners are not as many as its sizes say, or no shards of it.
  Prepare prepare;
  prepare.placement.epoch = 1;
  prepare.placement.shards = {"s0"};
  prepare.placement.layers = 1;
  prepare.placement.experts = {2, 0};
  for (const auto& owners : std::vector<std::vector<ShardSet>>{{1}, {1, 1, 1}, {1, 2}}) {
    prepare.placement.owners = owners;
    receive(1, make_message(FrameType::kPrepare, prepare));
  }
  EXPECT_THAT(prepares, IsEmpty());
  prepare.placement.owners = {1, 0};
  receive(1, make_message(FrameType::kPrepare, prepare));
  EXPECT_THAT(prepares, ElementsAre(1U));
  receive(1, make_message(FrameType::kDrain, Drain{"expert-shard", "s0"}));
  EXPECT_EQ(drains, 1);
}

}  // namespace
}  // namespace moesaic::cluster
