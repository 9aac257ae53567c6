#include "common/cluster/etcd_election.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/unit/cluster/fake_etcd.hpp"

namespace moesaic::cluster::etcd {
namespace {

using namespace std::chrono_literals;
using testing::IsEmpty;
using testing::SizeIs;

const std::string kGrant = "/v3/lease/grant";
const std::string kKeepalive = "/v3/lease/keepalive";
const std::string kRevoke = "/v3/lease/revoke";
const std::string kTxn = "/v3/kv/txn";

const std::string kGranted = R"({"header":{"revision":"1"},"ID":"77","TTL":"2"})";
const std::string kKept = R"({"result":{"header":{"revision":"1"},"ID":"77","TTL":"2"}})";
const std::string kExpired = R"({"result":{"header":{"revision":"1"},"ID":"77"}})";
const std::string kWon = R"({"header":{"revision":"12"},"succeeded":true})";

const FakeEtcd::Answer kSilence{"", 200, true};

/// The claim was lost: the key (L20vbGVhZGVy is "/m/leader") belongs to "r1" (cjE=).
std::string owned(int lease, int revision) {
  return R"({"header":{"revision":"20"},"responses":[{"response_range":{"kvs":[{"key":"L20vbGVhZGVy","create_revision":")" +
         std::to_string(revision) + R"(","mod_revision":")" + std::to_string(revision) +
         R"(","value":"cjE=","lease":")" + std::to_string(lease) + R"("}]}}]})";
}

struct EtcdElectionTest : testing::Test {
  FakeEtcd etcd;
  Gateway gateway{{etcd.endpoint()}, 300ms};
  Election election{{"/m/leader", "r0", 1}, gateway};
};

TEST_F(EtcdElectionTest, TheFirstToClaimLeadsInTheTermOfItsKey) {
  etcd.script(kGrant, {{kGranted}});
  etcd.script(kTxn, {{kWon}});
  const auto before = Election::Clock::now();
  ASSERT_TRUE(election.step());
  EXPECT_EQ(election.standing(), (Election::Standing{12, "r0"}));
  // Granted were 2 s, not the 1 s asked for; a sixth of them is the margin.
  EXPECT_GE(election.leads_until(), before + 1600ms);
  EXPECT_LE(election.leads_until(), Election::Clock::now() + 1670ms);
  EXPECT_EQ(election.interval(), 500ms);
}

TEST_F(EtcdElectionTest, FollowsTheOwner) {
  etcd.script(kGrant, {{kGranted}});
  etcd.script(kTxn, {{owned(5, 9)}});
  ASSERT_TRUE(election.step());
  EXPECT_EQ(election.standing(), (Election::Standing{0, "r1"}));
}

TEST_F(EtcdElectionTest, AClaimWhoseAnswerWasLostIsStillOurs) {
  etcd.script(kGrant, {{kGranted}});
  etcd.script(kKeepalive, {{kKept}});
  etcd.script(kTxn, {kSilence, {owned(77, 9)}});
  ASSERT_FALSE(election.step());
  EXPECT_EQ(election.standing().term, 0U);
  ASSERT_TRUE(election.step());
  EXPECT_EQ(election.standing().term, 9U);
}

TEST_F(EtcdElectionTest, StopsLeadingBeforeALeaseItCannotRenewEnds) {
  etcd.script(kGrant, {{kGranted}});
  etcd.script(kTxn, {{kWon}});
  etcd.script(kKeepalive, {kSilence});
  const auto granted = Election::Clock::now();
  ASSERT_TRUE(election.step());
  while (election.standing().term != 0) {
    ASSERT_LT(Election::Clock::now(), granted + 2s);
    ASSERT_FALSE(election.step());
  }
  EXPECT_GE(Election::Clock::now(), granted + 1600ms);
  EXPECT_LT(Election::Clock::now(), granted + 1900ms);
}

TEST_F(EtcdElectionTest, GivesTheOldLeaseUpBeforeItClaimsAgain) {
  etcd.script(kGrant, {{kGranted}});
  etcd.script(kTxn, {{kWon}});
  etcd.script(kKeepalive, {kSilence});
  while (election.step() || election.standing().term != 0) {
  }
  etcd.script(kGrant, {{R"({"ID":"78","TTL":"2"})"}});
  etcd.script(kTxn, {{R"({"header":{"revision":"30"},"succeeded":true})"}});
  etcd.script(kRevoke, {kSilence});
  ASSERT_FALSE(election.step());
  EXPECT_THAT(etcd.asked(kTxn), SizeIs(1)) << "no claim while the old key may still be there";
  etcd.script(kRevoke, {{R"({"error":"x","message":"requested lease not found","code":5})", 404}});
  ASSERT_TRUE(election.step());
  EXPECT_EQ(election.standing(), (Election::Standing{30, "r0"}));
  EXPECT_EQ(election.lease_id(), 78);
  EXPECT_THAT(etcd.asked(kRevoke), testing::Each(R"({"ID":"77"})"));
}

TEST_F(EtcdElectionTest, AnExpiredLeaseIsTheLossOfTheLead) {
  etcd.script(kGrant, {{kGranted}, {R"({"ID":"78","TTL":"2"})"}});
  etcd.script(kTxn, {{kWon}, {owned(5, 14)}});
  etcd.script(kKeepalive, {{kExpired}});
  ASSERT_TRUE(election.step());
  ASSERT_TRUE(election.step());
  EXPECT_EQ(election.standing(), (Election::Standing{0, "r1"}));
  EXPECT_THAT(etcd.asked(kGrant), SizeIs(2));
}

TEST_F(EtcdElectionTest, OddAnswersAreErrorsAndLeadToNothing) {
  for (const char* odd : {"", "{}", "nonsense", R"({"ID":"1"})", R"({"ID":{},"TTL":"2"})",
                          R"({"error":"x","message":"no space","code":8})"}) {
    etcd.script(kGrant, {{odd}});
    EXPECT_FALSE(election.step()) << odd;
    EXPECT_EQ(election.standing(), Election::Standing{}) << odd;
  }
  EXPECT_THAT(etcd.asked(kTxn), IsEmpty());
  etcd.script(kGrant, {{kGranted}});
  etcd.script(kKeepalive, {{kKept}});
  for (const char* odd : {"", "{}", R"({"header":{"revision":"3"}})", R"({"succeeded":true})"}) {
    etcd.script(kTxn, {{odd}});
    EXPECT_FALSE(election.step()) << odd;
    EXPECT_EQ(election.standing(), Election::Standing{}) << odd;
  }
}

class EtcdGatewayTest : public EtcdElectionTest {};

TEST_F(EtcdGatewayTest, AsksTheNextEndpointWhenOneFails) {
  FakeEtcd dead, silent, troubled;
  dead.stop();
  silent.script("/x", {kSilence});
  troubled.script("/x", {{.body = "{}", .status = 503}});
  etcd.script("/x", {{"well"}});
  Gateway all({dead.endpoint(), silent.endpoint(), troubled.endpoint() + "/", etcd.endpoint()},
              200ms);
  for (int i = 0; i < 3; ++i) {
    const auto text = all.post("/x", "{}", Gateway::Clock::now() + 5s);
    ASSERT_TRUE(text) << text.error().what;
    EXPECT_EQ(*text, "well");
  }
  EXPECT_THAT(silent.asked("/x"), SizeIs(1)) << "the one that answers is asked first from then on";
  EXPECT_THAT(troubled.asked("/x"), SizeIs(1));
}

TEST_F(EtcdGatewayTest, NoEndpointsIsAnErrorNotACrash) {
  Gateway none({}, 200ms);
  EXPECT_FALSE(none.post("/x", "{}", Gateway::Clock::now() + 1s));
  EXPECT_FALSE(none.follow("/x", "{}", 1s, [](std::string_view) { return true; }));
}

}  // namespace
}  // namespace moesaic::cluster::etcd
