#include "common/http/request_count.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "common/http/server.hpp"
#include "common/metrics/metrics.hpp"
#include "tests/unit/http/raw_client.hpp"

namespace moesaic {
namespace {

double counted(const std::string& route, const std::string& method, const std::string& status) {
  return metrics::counter("moesaic_http_requests_total",
                          {{"route", route}, {"method", method}, {"status", status}})
      .value();
}

class RequestCountTest : public testing::Test {
 protected:
  void SetUp() override {
    HttpRouter router;
    router.add("GET", "/things/{id}",
               [](const HttpRequest&, const std::shared_ptr<Responder>& way) {
                 way->send({200, {}, "thing"});
               });
    router.add("GET", "/stream", [](const HttpRequest&, const std::shared_ptr<Responder>& way) {
      way->begin_stream({});
      way->write("a");
      way->end();
    });
    router.add("POST", "/hold", [this](const HttpRequest&, std::shared_ptr<Responder> way) {
      held = std::move(way);
    });
    HttpServerConfig config;
    config.port = 0;
    config.body_limit = 10;
    auto started = HttpServer::start(config, std::move(router), [](const HttpFault& fault) {
      return HttpAnswer{fault.kind == HttpFaultKind::kBodyTooLarge ? 413U : 404U, {}, ""};
    });
    ASSERT_TRUE(started) << started.error().what;
    server = std::move(*started);
  }
  void TearDown() override { server->stop(std::chrono::milliseconds{0}); }

  int ask(const std::string& head, const std::string& body = "") {
    RawClient client(server->port());
    client.send(head + " HTTP/1.1\r\nHost: t\r\nContent-Length: " + std::to_string(body.size()) +
                "\r\n\r\n" + body);
    return client.read_response().status;
  }

  std::unique_ptr<HttpServer> server;
  std::shared_ptr<Responder> held;
};

TEST_F(RequestCountTest, CountsByPatternNotByPath) {
  EXPECT_EQ(ask("GET /things/1"), 200);
  EXPECT_EQ(ask("GET /things/2?x=1"), 200);
  EXPECT_EQ(counted("/things/{id}", "GET", "200"), 2);
}

TEST_F(RequestCountTest, WhatAClientInventsIsOther) {
  const auto before = counted("other", "GET", "404");
  EXPECT_EQ(ask("GET /wp-login.php"), 404);
  EXPECT_EQ(ask("BREW /coffee"), 404);
  EXPECT_EQ(counted("other", "GET", "404"), before + 1);
  EXPECT_EQ(counted("other", "other", "404"), 1);
}

TEST_F(RequestCountTest, AStreamCountsOnceWhenItBegins) {
  EXPECT_EQ(ask("GET /stream"), 200);
  EXPECT_EQ(counted("/stream", "GET", "200"), 1);
}

TEST_F(RequestCountTest, ABodyThatIsRefusedCountsAtItsRoute) {
  EXPECT_EQ(ask("POST /hold", std::string(100, 'x')), 413);
  EXPECT_EQ(counted("/hold", "POST", "413"), 1);
}

TEST_F(RequestCountTest, AClientThatLeavesBeforeItsAnswerIs499) {
  RawClient client(server->port());
  client.send("POST /hold HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
  client.close();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (counted("/hold", "POST", "499") == 0 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(counted("/hold", "POST", "499"), 1);
}

}  // namespace
}  // namespace moesaic
