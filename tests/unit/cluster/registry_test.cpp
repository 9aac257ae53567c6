#include "common/cluster/registry.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "common/base/base64.hpp"
#include "tests/support/registry_log.hpp"
#include "tests/support/temp_dir.hpp"
#include "tests/unit/cluster/fake_etcd.hpp"

namespace moesaic::cluster {
namespace {

using namespace std::chrono_literals;
using test::RegistryLog;
using testing::HasSubstr;
using testing::SizeIs;
using Kind = RegistryEvent::Kind;

TEST(EmbeddedRegistryTest, LeadsAtOnceInItsTerm) {
  RegistryLog log;
  const auto registry = make_embedded_registry("r0", 42);
  registry->start(log.sink());
  ASSERT_THAT(log.events(), SizeIs(1));
  EXPECT_EQ(log.events()[0].kind, Kind::kLeading);
  EXPECT_EQ(log.events()[0].term, 42U);
  EXPECT_EQ(log.events()[0].leader, "r0");
}

TEST(EmbeddedRegistryTest, StoresGrowingEpochsOfItsTermOnly) {
  RegistryLog log;
  const auto registry = make_embedded_registry("r0", 42);
  EXPECT_EQ(registry->store(42, 1, "a").error().code, Errc::kUnavailable) << "not started";
  registry->start(log.sink());
  ASSERT_TRUE(registry->store(42, 2, "a: 1"));
  EXPECT_EQ(registry->store(42, 2, "b").error().code, Errc::kInvalidArgument);
  EXPECT_EQ(registry->store(41, 3, "b").error().code, Errc::kUnavailable);
  ASSERT_THAT(log.events(), SizeIs(2));
  EXPECT_EQ(log.events()[1].kind, Kind::kPlacement);
  EXPECT_EQ(log.events()[1].epoch, 2U);
  EXPECT_EQ(log.events()[1].yaml, "a: 1");
  registry->stop();
  EXPECT_EQ(registry->store(42, 3, "b").error().code, Errc::kUnavailable);
}

// What moesaic place gave was lost with the router's process, and its file came back into force.
TEST(EmbeddedRegistryTest, TellsTheNextLifeWhatWasStored) {
  const test::TempDir dir;
  const auto kept = dir / "placement.yaml";
  {
    RegistryLog log;
    const auto registry = make_embedded_registry("r0", 42, kept);
    registry->start(log.sink());
    EXPECT_THAT(log.events(), SizeIs(1)) << "nothing is kept yet";
    ASSERT_TRUE(registry->store(42, 7, "a: 1"));
  }
  RegistryLog log;
  const auto registry = make_embedded_registry("r0", 43, kept);
  registry->start(log.sink());
  ASSERT_THAT(log.events(), SizeIs(2));
  EXPECT_EQ(log.events()[0].kind, Kind::kPlacement);
  EXPECT_EQ(log.events()[0].yaml, "a: 1");
  EXPECT_EQ(log.events()[1].kind, Kind::kLeading);
  ASSERT_TRUE(registry->store(43, 2, "")) << "back to even ranges";
  EXPECT_FALSE(std::filesystem::exists(kept));
  EXPECT_TRUE(registry->store(43, 3, ""));
}

TEST(EmbeddedRegistryTest, WhatCannotBeKeptIsNotStored) {
  const test::TempDir dir;
  RegistryLog log;
  const auto registry = make_embedded_registry("r0", 42, dir / "none" / "placement.yaml");
  registry->start(log.sink());
  EXPECT_EQ(registry->store(42, 2, "a: 1").error().code, Errc::kIo);
  EXPECT_THAT(log.events(), SizeIs(1));
}

std::string key_value(const std::string& key, const std::string& value, int revision) {
  return R"({"key":")" + encode_base64(key) + R"(","value":")" + encode_base64(value) +
         R"(","create_revision":"1","mod_revision":")" + std::to_string(revision) + R"("})";
}
std::string range(int revision, const std::string& entries = "") {
  return R"({"header":{"revision":")" + std::to_string(revision) + R"("},"kvs":[)" + entries + "]}";
}
std::string event_line(const std::string& entry) {
  return R"({"result":{"header":{"revision":"9"},"events":[{"kv":)" + entry + "}]}}\n";
}
std::string placement(int epoch) {
  return R"({"epoch":)" + std::to_string(epoch) + R"(,"term":"3","placement":"p)" +
         std::to_string(epoch) + R"("})";
}

const std::string kCreated = R"({"result":{"header":{"revision":"5"},"created":true}})"
                             "\n";

struct EtcdRegistryTest : testing::Test {
  EtcdRegistryTest() {
    etcd.script("/v3/lease/grant", {{R"({"ID":"77","TTL":"2"})"}});
    etcd.script("/v3/lease/keepalive", {{R"({"result":{"ID":"77","TTL":"2"}})"}});
    etcd.script("/v3/lease/revoke", {{"{}"}});
    etcd.script("/v3/kv/txn", {{R"({"header":{"revision":"3"},"succeeded":true})"}});
    etcd.script("/v3/kv/range", {{range(5)}});
    etcd.script("/v3/watch", {{.body = kCreated, .stream = true}});
  }
  void start() {
    registry = make_etcd_registry({{etcd.endpoint()}, "/m/", "r0", 2});
    registry->start(log.sink());
  }

  FakeEtcd etcd;
  RegistryLog log;
  std::unique_ptr<Registry> registry;
};

TEST_F(EtcdRegistryTest, HearsOfThePlacementBeforeItLeads) {
  etcd.script("/v3/kv/range", {{range(5, key_value("/m/placement", placement(4), 2))}});
  start();
  ASSERT_TRUE(log.wait_to_lead(5s));
  const auto events = log.events();
  ASSERT_THAT(events, SizeIs(2));
  EXPECT_EQ(events[0].kind, Kind::kPlacement);
  EXPECT_EQ(events[0].epoch, 4U);
  EXPECT_EQ(events[0].yaml, "p4");
  EXPECT_EQ(events[1].kind, Kind::kLeading);
  EXPECT_EQ(events[1].term, 3U);
}

TEST_F(EtcdRegistryTest, ReadsAgainWhenTheWatchIsCompactedAway) {
  etcd.script("/v3/watch",
              {{.body = kCreated + R"({"result":{"canceled":true,"compact_revision":"10"}})"
                                   "\n",
                .stream = true},
               {.body = kCreated + event_line(key_value("/m/placement", placement(6), 12)),
                .stream = true}});
  start();
  ASSERT_TRUE(log.wait_for_placement(6, 5s));
  EXPECT_THAT(etcd.asked("/v3/watch")[0], HasSubstr(R"("start_revision":"6")"));
}

TEST_F(EtcdRegistryTest, AWatchThatBreaksIsTakenUpAgain) {
  etcd.script("/v3/watch",
              {{.body = "", .status = 500},
               {.body = R"({"error":{"grpc_code":14,"message":"transport is closing"}})"
                        "\n",
                .stream = true},
               {.body = "no line of etcd's\n", .stream = true},
               {.body = kCreated + event_line(key_value("/m/placement", placement(6), 12)),
                .stream = true}});
  start();
  EXPECT_TRUE(log.wait_for_placement(6, 5s));
}

TEST_F(EtcdRegistryTest, OldNewsAndBrokenPlacementsChangeNothing) {
  const auto lines = kCreated + event_line(key_value("/m/placement", placement(6), 12)) +
                     event_line(key_value("/m/placement", placement(5), 11)) +
                     event_line(key_value("/m/placement", "broken", 13)) +
                     event_line(key_value("/m/else", placement(7), 14)) +
                     R"({"result":{"events":[{"type":"DELETE","kv":{"key":")" +
                     encode_base64("/m/placement") + R"(","mod_revision":"15"}}]}})" + "\n" +
                     event_line(key_value("/m/placement", placement(8), 16));
  etcd.script("/v3/watch", {{.body = lines, .stream = true}});
  start();
  ASSERT_TRUE(log.wait_for_placement(8, 5s));
  std::vector<std::uint32_t> epochs;
  for (const auto& event : log.events()) {
    if (event.kind == Kind::kPlacement) epochs.push_back(event.epoch);
  }
  EXPECT_THAT(epochs, testing::ElementsAre(6, 8));
}

TEST_F(EtcdRegistryTest, TellsThatNobodyIsKnownToLeadWhenEtcdIsOutOfReach) {
  etcd.stop();
  start();
  EXPECT_TRUE(log.wait_to_follow("", 5s));
  EXPECT_EQ(registry->store(3, 1, "p").error().code, Errc::kUnavailable);
}

TEST_F(EtcdRegistryTest, StopsAtOnceWhileEtcdIsSilent) {
  for (const char* path : {"/v3/lease/grant", "/v3/kv/range", "/v3/watch"}) {
    etcd.script(path, {{"", 200, true}});
  }
  start();
  std::this_thread::sleep_for(50ms);
  const auto before = std::chrono::steady_clock::now();
  registry->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - before, 500ms);
}

TEST_F(EtcdRegistryTest, GivesItsLeaseBackWhenItStops) {
  start();
  ASSERT_TRUE(log.wait_to_lead(5s));
  registry->stop();
  EXPECT_THAT(etcd.asked("/v3/lease/revoke"), testing::ElementsAre(R"({"ID":"77"})"));
}

}  // namespace
}  // namespace moesaic::cluster
