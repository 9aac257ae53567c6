#include "common/http/admin_server.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "common/metrics/metrics.hpp"
#include "tests/unit/http/raw_client.hpp"

namespace moesaic {
namespace {

using testing::HasSubstr;

class AdminServerTest : public testing::Test {
 protected:
  void SetUp() override {
    AdminParts parts;
    parts.ready = [this] { return Readiness{ready, ready ? "" : R"({"missing":"shard-1"})"}; };
    parts.add_routes = [](HttpRouter& router) {
      router.add("GET", "/view", [](const HttpRequest&, const std::shared_ptr<Responder>& way) {
        way->send({200, {}, "a view"});
      });
    };
    auto started = AdminServer::start("127.0.0.1", 0, std::move(parts));
    ASSERT_TRUE(started) << started.error().what;
    server = std::move(*started);
  }

  RawClient::Response get(const std::string& path, const std::string& method = "GET") {
    RawClient client(server->port());
    client.send(method + " " + path + " HTTP/1.1\r\nHost: t\r\n\r\n");
    return client.read_response();
  }

  std::atomic<bool> ready = true;
  std::unique_ptr<AdminServer> server;
};

TEST_F(AdminServerTest, IsAliveWhateverItsReadiness) {
  EXPECT_EQ(get("/health").status, 200);
  ready = false;
  EXPECT_EQ(get("/health").status, 200);
}

TEST_F(AdminServerTest, ReadyFollowsTheServiceAndSaysWhatIsMissing) {
  auto answer = get("/ready");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, R"({"ready":true})");
  ready = false;
  answer = get("/ready");
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.body, R"({"ready":false,"detail":{"missing":"shard-1"}})");
}

TEST_F(AdminServerTest, MetricsAreOfThisProcessAndTellReadiness) {
  metrics::gauge("moesaic_placement_generation").set(17);
  auto answer = get("/metrics");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
  EXPECT_THAT(answer.body, HasSubstr("\nmoesaic_placement_generation 17\n"));
  EXPECT_THAT(answer.body, HasSubstr("moesaic_control_ready 1\n"));
  ready = false;
  EXPECT_THAT(get("/metrics").body, HasSubstr("moesaic_control_ready 0\n"));
}

TEST_F(AdminServerTest, ServesTheRoutesOfItsOwner) {
  EXPECT_EQ(get("/view").body, "a view");
  EXPECT_THAT(get("/version").body, HasSubstr(R"({"version":")"));
  EXPECT_EQ(server->url(), "http://127.0.0.1:" + std::to_string(server->port()));
}

TEST_F(AdminServerTest, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(get("/v1/models").status, 404);
  const auto answer = get("/metrics", "DELETE");
  EXPECT_EQ(answer.status, 405);
  EXPECT_EQ(answer.body, R"({"error":"method not allowed"})");
}

TEST(AdminServerAddressTest, AWildcardOrAnUnallowedAddressIsRefusedByItsKey) {
  const auto refused = [](const std::string& host, bool allow) {
    AdminParts parts;
    parts.ready = [] { return Readiness{}; };
    parts.allow_any_host = allow;
    auto server = AdminServer::start(host, 0, std::move(parts));
    return server ? std::string("accepted") : server.error().what;
  };
  EXPECT_EQ(refused("0.0.0.0", true),
            "admin.host \"0.0.0.0\": every interface at once; name the one address to listen on");
  EXPECT_THAT(refused("::", true), HasSubstr("every interface at once"));
  EXPECT_THAT(refused("::ffff:0.0.0.0", true), HasSubstr("every interface at once"));
  EXPECT_THAT(refused("192.0.2.1", false), HasSubstr("--insecure-no-auth"));
  EXPECT_THAT(refused("example", true), HasSubstr("not an IP address"));
  // Allowed, but not an address of this machine.
  EXPECT_THAT(refused("192.0.2.1", true), HasSubstr("cannot listen on 192.0.2.1 port 0"));
  EXPECT_EQ(refused("::ffff:127.0.0.1", false), "accepted");
}

}  // namespace
}  // namespace moesaic
