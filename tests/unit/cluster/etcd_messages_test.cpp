#include "common/cluster/etcd_messages.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic::cluster::etcd {
namespace {

using testing::HasSubstr;

// Base64 by hand: "/m/leader" = L20vbGVhZGVy, "/m/" = L20v, "/m0" = L20w, "r0" = cjA=.

TEST(EtcdMessagesTest, RequestsAreWhatEtcdReads) {
  EXPECT_EQ(grant_request(3), R"({"TTL":"3"})");
  EXPECT_EQ(lease_request(7587888321901127681), R"({"ID":"7587888321901127681"})");
  EXPECT_EQ(range_request("/m/"), R"({"key":"L20v","range_end":"L20w"})");
  EXPECT_EQ(watch_request("/m/", 8),
            R"({"create_request":{"key":"L20v","range_end":"L20w","start_revision":"8"}})");
  EXPECT_EQ(claim_request("/m/leader", "r0", 9),
            R"({"compare":[{"target":"CREATE","key":"L20vbGVhZGVy","create_revision":"0"}],)"
            R"("success":[{"request_put":{"key":"L20vbGVhZGVy","value":"cjA=","lease":"9"}}],)"
            R"("failure":[{"request_range":{"key":"L20vbGVhZGVy"}}]})");
  EXPECT_EQ(
      guarded_put_request("/m/", "r0", 5, "/m/leader", 4),
      R"({"compare":[{"target":"CREATE","key":"L20vbGVhZGVy","create_revision":"4"},)"
      R"({"target":"MOD","key":"L20v","mod_revision":"5"}],)"
      R"("success":[{"request_put":{"key":"L20v","value":"cjA="}}],)"
      R"("failure":[{"request_range":{"key":"L20vbGVhZGVy"}},{"request_range":{"key":"L20v"}}]})");
}

TEST(EtcdMessagesTest, ARangeEndsBehindThePrefixAlsoWithItsLastByteFull) {
  EXPECT_EQ(range_request("a\xff"), R"({"key":"Yf8=","range_end":"Yg=="})");
  EXPECT_EQ(range_request("\xff"), R"({"key":"/w==","range_end":"AA=="})");
}

TEST(EtcdMessagesTest, NumbersComeAsStringsOrNumbers) {
  const auto lease =
      parse_grant(R"({"header":{"revision":"7"},"ID":"2324035570117956621","TTL":"3"})");
  ASSERT_TRUE(lease) << lease.error().what;
  EXPECT_EQ(lease->id, 2324035570117956621);
  EXPECT_EQ(lease->ttl_s, 3);
  EXPECT_EQ(parse_grant(R"({"ID":5,"TTL":2})")->id, 5);
}

TEST(EtcdMessagesTest, AnExpiredLeaseIsAnAnswerWithoutTtl) {
  EXPECT_EQ(parse_keepalive(R"({"result":{"ID":"5","TTL":"3"}})")->ttl_s, 3);
  const auto expired = parse_keepalive(R"({"result":{"header":{"revision":"2"},"ID":"5"}})");
  ASSERT_TRUE(expired) << expired.error().what;
  EXPECT_EQ(expired->ttl_s, 0);
  EXPECT_FALSE(parse_grant(R"({"ID":"5"})"));
}

TEST(EtcdMessagesTest, AClaimTellsItsTermOrTheOwner) {
  const auto won = parse_txn(
      R"({"header":{"revision":"12"},"succeeded":true,"responses":[{"response_put":{"header":{"revision":"12"}}}]})");
  ASSERT_TRUE(won) << won.error().what;
  EXPECT_TRUE(won->succeeded);
  EXPECT_EQ(won->revision, 12);
  const auto lost = parse_txn(
      R"({"header":{"revision":"15"},"responses":[{"response_range":{"kvs":[{"key":"L20vbGVhZGVy",)"
      R"("create_revision":"12","mod_revision":"12","version":"1","value":"cjA=","lease":"9"}],"count":"1"}}]})");
  ASSERT_TRUE(lost) << lost.error().what;
  EXPECT_FALSE(lost->succeeded);
  const auto* owner = lost->find("/m/leader");
  ASSERT_NE(owner, nullptr);
  EXPECT_EQ(owner->value, "r0");
  EXPECT_EQ(owner->create_revision, 12);
  EXPECT_EQ(owner->lease, 9);
  EXPECT_EQ(lost->find("/m/other"), nullptr);
}

TEST(EtcdMessagesTest, ARangeOfNothingHasNoKeys) {
  const auto none = parse_range(R"({"header":{"revision":"1"}})");
  ASSERT_TRUE(none) << none.error().what;
  EXPECT_EQ(none->revision, 1);
  EXPECT_TRUE(none->found.empty());
}

TEST(EtcdMessagesTest, AWatchLineHoldsAnyNumberOfEvents) {
  EXPECT_TRUE(
      parse_watch_line(R"({"result":{"header":{"revision":"3"},"created":true}})")->events.empty());
  const auto line = parse_watch_line(
      R"({"result":{"header":{"revision":"5"},"events":[{"kv":{"key":"L20vbGVhZGVy","create_revision":"4",)"
      R"("mod_revision":"4","value":"cjA="}},{"type":"DELETE","kv":{"key":"L20vbGVhZGVy","mod_revision":"5"}}]}})");
  ASSERT_TRUE(line) << line.error().what;
  ASSERT_EQ(line->events.size(), 2U);
  EXPECT_EQ(line->events[0].value, "r0");
  EXPECT_FALSE(line->events[0].deleted);
  EXPECT_EQ(line->events[1].key, "/m/leader");
  EXPECT_TRUE(line->events[1].deleted);
  EXPECT_EQ(line->events[1].mod_revision, 5);
  const auto canceled =
      parse_watch_line(R"({"result":{"header":{},"canceled":true,"compact_revision":"10"}})");
  ASSERT_TRUE(canceled);
  EXPECT_TRUE(canceled->canceled);
  EXPECT_EQ(canceled->compact_revision, 10);
}

TEST(EtcdMessagesTest, ErrorsOfEtcdAreTold) {
  const auto lease = parse_txn(
      R"({"error":"etcdserver: requested lease not found","message":"etcdserver: requested lease not found","code":5})");
  ASSERT_FALSE(lease);
  EXPECT_EQ(lease.error().code, Errc::kUnavailable);
  EXPECT_THAT(lease.error().what, HasSubstr("requested lease not found (code 5)"));
  const auto stopped = parse_watch_line(
      R"({"error":{"grpc_code":14,"http_code":503,"message":"transport is closing","http_status":"Service Unavailable"}})");
  ASSERT_FALSE(stopped);
  EXPECT_THAT(stopped.error().what, HasSubstr("transport is closing (code 14)"));
}

TEST(EtcdMessagesTest, WhatIsNoAnswerIsRefusedNotGuessed) {
  for (const char* text :
       {"", "404 page not found", "[]", "{", R"({"header":{"revision":"x"}})", R"({"header":7})",
        R"({"header":{"revision":"1"},"kvs":{}})", R"({"header":{"revision":"1"},"kvs":[1]})",
        R"({"header":{"revision":"1"},"kvs":[{"key":"not base64!"}]})",
        R"({"header":{"revision":"99999999999999999999"}})", R"({"header":{"revision":"-1"}})",
        "{}"}) {
    const auto range = parse_range(text);
    ASSERT_FALSE(range) << text;
    EXPECT_EQ(range.error().code, Errc::kCorrupt) << text;
  }
  EXPECT_EQ(parse_watch_line(R"({"header":{}})").error().code, Errc::kCorrupt);
  EXPECT_EQ(parse_txn(R"({"header":{"revision":"1"},"succeeded":"yes"})").error().code,
            Errc::kCorrupt);
}

TEST(EtcdMessagesTest, APlacementComesBackAsItWasStored) {
  const StoredPlacement placement{4'000'000'000U, 123'456'789'012, "shards:\n  - \"a\"\n"};
  const auto back = parse_stored_placement(format_stored_placement(placement));
  ASSERT_TRUE(back) << back.error().what;
  EXPECT_EQ(back->epoch, placement.epoch);
  EXPECT_EQ(back->term, placement.term);
  EXPECT_EQ(back->yaml, placement.yaml);
  for (const char* text : {R"({"epoch":0,"placement":""})", R"({"epoch":4294967296})",
                           R"({"epoch":1,"term":"-1"})", "yaml: 1", "{}"}) {
    EXPECT_FALSE(parse_stored_placement(text)) << text;
  }
}

}  // namespace
}  // namespace moesaic::cluster::etcd
