// Routers that agree through a real etcd. Fails without the program where CI is set, skips
// elsewhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "common/cluster/etcd_messages.hpp"
#include "common/cluster/registry.hpp"
#include "common/http/client.hpp"
#include "tests/support/etcd_server.hpp"
#include "tests/support/registry_log.hpp"

namespace moesaic {
namespace {

using namespace std::chrono_literals;
using test::RegistryLog;
using Clock = std::chrono::steady_clock;

constexpr unsigned kLeaseSeconds = 3;
constexpr auto kLease = std::chrono::seconds(kLeaseSeconds);
constexpr auto kPatience = 15s;

/// A router's part in the agreement.
struct Router {
  explicit Router(std::vector<std::string> endpoints, std::string name)
      : registry(cluster::make_etcd_registry(
            {std::move(endpoints), "/t/", std::move(name), kLeaseSeconds})) {
    registry->start(log.sink());
  }
  ~Router() { registry->stop(); }
  RegistryLog log;
  std::unique_ptr<cluster::Registry> registry;
};

class EtcdTest : public testing::Test {
 protected:
  void SetUp() override {
    if (test::EtcdServer::program().empty()) {
      if (std::getenv("CI") != nullptr) FAIL() << "etcd is not installed (etcd-server)";
      GTEST_SKIP() << "etcd is not installed (etcd-server)";
    }
    etcd.start();
  }
  std::unique_ptr<Router> router(const std::string& name) {
    return std::make_unique<Router>(std::vector{etcd.endpoint()}, name);
  }

  test::EtcdServer etcd;
};

TEST_F(EtcdTest, TwoRoutersElectOneLeader) {
  const auto a = router("r0");
  ASSERT_TRUE(a->log.wait_to_lead(kPatience));
  const auto b = router("r1");
  ASSERT_TRUE(b->log.wait_to_follow("r0", kPatience));
  std::this_thread::sleep_for(kLease + 1s);
  EXPECT_NE(a->log.term(), 0U) << "still leads, its lease renewed";
  EXPECT_EQ(b->log.term(), 0U);
  EXPECT_EQ(a->log.events().size(), 1U);
}

TEST_F(EtcdTest, ALeaderThatStopsIsFollowedAtOnce) {
  auto a = router("r0");
  ASSERT_TRUE(a->log.wait_to_lead(kPatience));
  const auto term = a->log.term();
  const auto b = router("r1");
  ASSERT_TRUE(b->log.wait_to_follow("r0", kPatience));
  a->registry->stop();
  ASSERT_TRUE(b->log.wait_to_lead(1s));
  EXPECT_GT(b->log.term(), term);
}

TEST_F(EtcdTest, AKilledLeaderIsReplacedWithinItsLeaseAndASecond) {
  // Before this process has threads: the child is a router of its own.
  const pid_t child = ::fork();
  if (child == 0) {
    Router leader({etcd.endpoint()}, "r0");
    ::pause();
    ::_exit(0);
  }
  const auto b = [&] {
    while (etcd.post("/v3/kv/range", cluster::etcd::range_request("/t/leader")).find("kvs") ==
           std::string::npos) {
      std::this_thread::sleep_for(20ms);
    }
    return router("r1");
  }();
  ASSERT_TRUE(b->log.wait_to_follow("r0", kPatience));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  const auto killed = Clock::now();
  ASSERT_TRUE(b->log.wait_to_lead(kLease + 1s));
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - killed);
  RecordProperty("takeover_ms", static_cast<int>(took.count()));
}

TEST_F(EtcdTest, AFrozenEtcdEndsTheLeadBeforeTheLease) {
  const auto a = router("r0");
  ASSERT_TRUE(a->log.wait_to_lead(kPatience));
  const auto term = a->log.term();
  etcd.signal(SIGSTOP);
  ASSERT_TRUE(a->log.wait_to_follow("", kLease));
  EXPECT_EQ(a->registry->store(term, 1, "late").error().code, Errc::kUnavailable);
  etcd.signal(SIGCONT);
  ASSERT_TRUE(a->log.wait_to_lead(kPatience));
  EXPECT_GT(a->log.term(), term);
}

TEST_F(EtcdTest, EveryRouterSeesWhatTheLeaderStores) {
  const auto a = router("r0");
  ASSERT_TRUE(a->log.wait_to_lead(kPatience));
  const auto b = router("r1");
  ASSERT_TRUE(b->log.wait_to_follow("r0", kPatience));
  const std::string yaml = "epoch: 1\nshards: []  # \"quoted\"\n";
  const auto stored = a->registry->store(a->log.term(), 1, yaml);
  ASSERT_TRUE(stored) << stored.error().what;
  for (auto* router : {a.get(), b.get()}) {
    ASSERT_TRUE(router->log.wait_for_placement(1, kPatience));
    EXPECT_EQ(router->log.events().back().yaml, yaml);
  }
  EXPECT_EQ(a->registry->store(a->log.term(), 1, "other").error().code, Errc::kInvalidArgument);
  EXPECT_EQ(b->registry->store(a->log.term(), 2, "other").error().code, Errc::kUnavailable);
  ASSERT_TRUE(a->registry->store(a->log.term(), 2, "next"));
  EXPECT_TRUE(b->log.wait_for_placement(2, kPatience));
}

TEST_F(EtcdTest, AStaleTermCannotStore) {
  auto a = router("r0");
  ASSERT_TRUE(a->log.wait_to_lead(kPatience));
  const auto stale = a->log.term();
  a.reset();
  const auto b = router("r1");
  ASSERT_TRUE(b->log.wait_to_lead(kPatience));
  EXPECT_EQ(b->registry->store(stale, 1, "late").error().code, Errc::kUnavailable);
  // The same from one that does not know yet, as after a long pause of its process.
  const auto refused = cluster::etcd::parse_txn(etcd.post(
      "/v3/kv/txn", cluster::etcd::guarded_put_request("/t/placement", "late", 0, "/t/leader",
                                                       static_cast<std::int64_t>(stale))));
  ASSERT_TRUE(refused) << refused.error().what;
  EXPECT_FALSE(refused->succeeded);
  EXPECT_EQ(refused->find("/t/leader")->value, "r1");
  EXPECT_EQ(refused->find("/t/placement"), nullptr);
}

TEST_F(EtcdTest, ARestartOfEtcdKeepsThePlacementAndTermsGrow) {
  const auto a = router("r0");
  ASSERT_TRUE(a->log.wait_to_lead(kPatience));
  const auto b = router("r1");
  ASSERT_TRUE(b->log.wait_to_follow("r0", kPatience));
  const auto term = a->log.term();
  ASSERT_TRUE(a->registry->store(term, 7, "seven"));
  etcd.kill();
  etcd.start();
  const auto end = Clock::now() + kPatience;
  RegistryLog* leader = nullptr;
  Result<void> stored = fail(Errc::kUnavailable, "nobody leads");
  while (!stored && Clock::now() < end) {
    for (auto* router : {a.get(), b.get()}) {
      if (router->log.term() == 0 || stored) continue;
      leader = &router->log;
      EXPECT_GE(leader->term(), term);
      stored = router->registry->store(leader->term(), 8, "eight");
    }
    std::this_thread::sleep_for(20ms);
  }
  ASSERT_TRUE(stored) << stored.error().what;
  EXPECT_TRUE(a->log.wait_for_placement(8, kPatience));
  EXPECT_TRUE(b->log.wait_for_placement(8, kPatience));
  const auto late = router("r2");
  EXPECT_TRUE(late->log.wait_for_placement(8, kPatience));
}

TEST_F(EtcdTest, CompactionIsToldAndLosesNothing) {
  const auto a = router("r0");
  ASSERT_TRUE(a->log.wait_to_lead(kPatience));
  for (std::uint32_t epoch = 1; epoch <= 5; ++epoch) {
    ASSERT_TRUE(a->registry->store(a->log.term(), epoch, "p"));
  }
  const auto range =
      cluster::etcd::parse_range(etcd.post("/v3/kv/range", cluster::etcd::range_request("/t/")));
  ASSERT_TRUE(range) << range.error().what;
  etcd.post("/v3/kv/compaction",
            R"({"revision":")" + std::to_string(range->revision) + R"(","physical":true})");

  HttpClient client;
  cluster::etcd::WatchLine last;
  const auto watched =
      client.stream(etcd.endpoint() + "/v3/watch", cluster::etcd::watch_request("/t/", 2), {}, 5s,
                    5s, [&](std::string_view text) {
                      const auto line = cluster::etcd::parse_watch_line(text);
                      EXPECT_TRUE(line) << line.error().what;
                      if (line) last = *line;
                      return line && !line->canceled;
                    });
  ASSERT_TRUE(watched) << watched.error().what;
  EXPECT_EQ(last.compact_revision, range->revision);

  const auto b = router("r1");
  EXPECT_TRUE(b->log.wait_for_placement(5, kPatience));
  ASSERT_TRUE(a->registry->store(a->log.term(), 6, "p"));
  EXPECT_TRUE(a->log.wait_for_placement(6, kPatience));
  EXPECT_TRUE(b->log.wait_for_placement(6, kPatience));
}

TEST_F(EtcdTest, ADeadEndpointIsPassedOver) {
  Router a({"http://127.0.0.1:1", etcd.endpoint()}, "r0");
  EXPECT_TRUE(a.log.wait_to_lead(kPatience));
}

TEST_F(EtcdTest, ALeaderWhoseKeyIsDeletedLeadsInANewTerm) {
  const auto a = router("r0");
  ASSERT_TRUE(a->log.wait_to_lead(kPatience));
  const auto term = a->log.term();
  etcd.post("/v3/kv/deleterange", cluster::etcd::range_request("/t/leader"));
  EXPECT_TRUE(a->log.wait(kPatience, [&](const auto& events) {
    return RegistryLog::leads(events) && RegistryLog::standing(events)->term > term;
  }));
}

}  // namespace
}  // namespace moesaic
