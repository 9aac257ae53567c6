#include "common/http/server.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <mutex>
#include <thread>

#include "tests/unit/http/raw_client.hpp"

namespace moesaic {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

HttpAnswer refusal(const HttpFault& fault) {
  static const std::map<HttpFaultKind, unsigned> kStatus = {
      {HttpFaultKind::kMalformed, 400},        {HttpFaultKind::kHeadersTooLarge, 431},
      {HttpFaultKind::kBodyTooLarge, 413},     {HttpFaultKind::kTimeout, 408},
      {HttpFaultKind::kOverloaded, 503},       {HttpFaultKind::kUnknownUrl, 404},
      {HttpFaultKind::kMethodNotAllowed, 405}, {HttpFaultKind::kInternal, 500}};
  HttpAnswer answer{kStatus.at(fault.kind), {}, "refused"};
  if (!fault.allow.empty()) answer.headers.add("Allow", fault.allow);
  return answer;
}

std::string post(std::string_view path, std::string_view body) {
  return "POST " + std::string(path) +
         " HTTP/1.1\r\nHost: t\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
}

class HttpServerTest : public testing::Test {
 protected:
  /// Routes: /echo answers its body; /hold keeps the responder in `held`; /throw; /forget.
  void start(HttpServerConfig config = {}) {
    config.port = 0;
    HttpRouter router;
    router.add("POST", "/echo", [](HttpRequest request, std::shared_ptr<Responder> responder) {
      responder->send({200, {{"Content-Type", "text/plain"}}, request.body});
    });
    router.add("GET", "/items/{id}", [](HttpRequest request, std::shared_ptr<Responder> responder) {
      responder->send({200, {}, request.wildcard});
    });
    router.add("POST", "/hold", [this](HttpRequest, std::shared_ptr<Responder> responder) {
      responder->on_close([this] { closed.set_value(); });
      held.set_value(std::move(responder));
    });
    router.add("GET", "/throw",
               [](HttpRequest, std::shared_ptr<Responder>) { throw std::runtime_error("secret"); });
    router.add("GET", "/forget", [](HttpRequest, std::shared_ptr<Responder>) {});
    auto started = HttpServer::start(config, std::move(router), refusal);
    ASSERT_TRUE(started) << started.error().what;
    server = std::move(*started);
  }

  /// The responder of a request to /hold.
  std::shared_ptr<Responder> responder() {
    auto future = held.get_future();
    if (future.wait_for(5s) != std::future_status::ready) {
      ADD_FAILURE() << "no request came";
      return nullptr;
    }
    return future.get();
  }
  bool closed_within(std::chrono::milliseconds limit) {
    return closed.get_future().wait_for(limit) == std::future_status::ready;
  }

  std::promise<std::shared_ptr<Responder>> held;
  std::promise<void> closed;
  std::unique_ptr<HttpServer> server;
};

TEST_F(HttpServerTest, ServesManyRequestsOnOneConnection) {
  start();
  RawClient client(server->port());
  for (const std::string body : {"one", "", "three"}) {
    ASSERT_TRUE(client.send(post("/echo", body)));
    const auto response = client.read_response();
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, body);
  }
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  start();
  RawClient client(server->port());
  client.send(post("/echo", "a") + post("/echo", "b") + post("/echo", "c"));
  for (const std::string body : {"a", "b", "c"}) EXPECT_EQ(client.read_response().body, body);
}

TEST_F(HttpServerTest, JoinsTheChunksOfARequest) {
  start();
  RawClient client(server->port());
  client.send("POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
  client.send("3\r\nabc\r\n");
  client.send("2;name=value\r\nde\r\n0\r\n\r\n");
  EXPECT_EQ(client.read_response().body, "abcde");
}

TEST_F(HttpServerTest, TakesAHundredThousandChunksOfOneByte) {
  start();
  RawClient client(server->port());
  client.send("POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
  std::string chunks;
  for (int i = 0; i < 100'000; ++i) chunks += "1\r\nx\r\n";
  std::jthread writer([&] { client.send(chunks + "0\r\n\r\n"); });
  EXPECT_EQ(client.read_response().body, std::string(100'000, 'x'));
}

TEST_F(HttpServerTest, TrailersDoNotBecomeHeaders) {
  start();
  RawClient client(server->port());
  client.send(
      "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
      "1\r\na\r\n0\r\nx-request-id: trailer\r\n\r\n");
  EXPECT_NE(client.read_response().headers["x-request-id"], "trailer");
}

TEST_F(HttpServerTest, AsksForTheBodyWhenTheClientWaitsForThat) {
  start();
  RawClient client(server->port());
  client.send(
      "POST /echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_THAT(client.read_until("\r\n\r\n"), HasSubstr("100 Continue"));
  client.send("ok");
  EXPECT_EQ(client.read_response().body, "ok");
}

TEST_F(HttpServerTest, EchoesASafeRequestIdAndReplacesOthers) {
  start();
  const auto id_for = [&](const std::string& sent) {
    RawClient client(server->port());
    client.send("GET /items/1 HTTP/1.1\r\nHost: t\r\nx-request-id: " + sent + "\r\n\r\n");
    return client.read_response().headers["x-request-id"];
  };
  EXPECT_EQ(id_for("abc-123"), "abc-123");
  EXPECT_EQ(id_for(std::string(128, 'a')), std::string(128, 'a'));
  EXPECT_EQ(id_for(std::string(129, 'a')).size(), 32U);
  EXPECT_EQ(id_for("with space").size(), 32U);
  EXPECT_EQ(id_for("\x01").size() % 32, 0U);
}

TEST_F(HttpServerTest, DecodesTheRestOfAWildcardPath) {
  start();
  RawClient client(server->port());
  client.send("GET /items/a%2Fb/c?x=1 HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client.read_response().body, "a/b/c");
}

TEST_F(HttpServerTest, HeadGetsTheHeadersOfGetAlone) {
  start();
  RawClient client(server->port());
  client.send("HEAD /items/abc HTTP/1.1\r\nHost: t\r\n\r\n");
  const auto response = client.read_response(/*head=*/true);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers.at("content-length"), "3");
  client.send("GET /items/next HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client.read_response().body, "next");
}

TEST_F(HttpServerTest, UnknownPathAndMethodKeepTheConnection) {
  start();
  RawClient client(server->port());
  client.send(post("/nowhere", "x"));
  EXPECT_EQ(client.read_response().status, 404);
  client.send("DELETE /echo HTTP/1.1\r\nHost: t\r\n\r\n");
  auto response = client.read_response();
  EXPECT_EQ(response.status, 405);
  EXPECT_EQ(response.headers["allow"], "POST");
  client.send(post("/items/1", ""));
  response = client.read_response();
  EXPECT_EQ(response.status, 405);
  EXPECT_EQ(response.headers["allow"], "GET, HEAD");
  client.send(post("/echo", "still"));
  EXPECT_EQ(client.read_response().body, "still");
}

TEST_F(HttpServerTest, RefusesAHeaderBlockOverTheLimit) {
  start();
  for (const std::size_t size : {17'000UL, 100'000UL, 2'000'000UL}) {
    RawClient client(server->port());
    std::jthread writer([&] {
      client.send("GET /items/1 HTTP/1.1\r\nX-Large: " + std::string(size, 'a') + "\r\n\r\n");
    });
    EXPECT_EQ(client.read_response().status, 431) << size;
    EXPECT_TRUE(client.closed_within(3s));
  }
}

TEST_F(HttpServerTest, BodyLimitHoldsToTheByte) {
  HttpServerConfig config;
  config.body_limit = 1'000;
  start(config);
  for (const auto& [size, status] :
       std::initializer_list<std::pair<std::size_t, int>>{{999, 200}, {1'000, 200}, {1'001, 413}}) {
    RawClient client(server->port());
    client.send(post("/echo", std::string(size, 'x')));
    EXPECT_EQ(client.read_response().status, status) << size;
  }
  for (const char* length : {"2147483648", "9223372036854775808", "18446744073709551615"}) {
    RawClient client(server->port());
    client.send("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: " + std::string(length) +
                "\r\n\r\n");
    EXPECT_EQ(client.read_response().status, 413) << length;
  }
  for (const char* length : {"-1", "1e3", "99999999999999999999999", "0x10"}) {
    RawClient client(server->port());
    client.send("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: " + std::string(length) +
                "\r\n\r\n");
    EXPECT_EQ(client.read_response().status, 400) << length;
  }
}

TEST_F(HttpServerTest, ClientThatSendsTooMuchStillGetsTheAnswer) {
  HttpServerConfig config;
  config.body_limit = 1'000;
  start(config);
  RawClient client(server->port());
  std::jthread writer([&] { client.send(post("/echo", std::string(8 << 20, 'x'))); });
  EXPECT_EQ(client.read_response().status, 413);
  EXPECT_TRUE(client.closed_within(3s));
}

TEST_F(HttpServerTest, BoundsTheChunkedBodyToo) {
  HttpServerConfig config;
  config.body_limit = 10;
  start(config);
  RawClient client(server->port());
  client.send(
      "POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
      "8\r\n12345678\r\n8\r\n12345678\r\n0\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 413);
}

TEST_F(HttpServerTest, RefusesWhenAllBodiesTogetherAreTooMuch) {
  HttpServerConfig config;
  config.body_total_limit = 1'500;
  start(config);
  RawClient first(server->port());
  RawClient second(server->port());
  const std::string head = "POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\n";
  first.send(head + std::string(999, 'x'));
  std::this_thread::sleep_for(100ms);
  second.send(head + std::string(1'000, 'y'));
  EXPECT_EQ(second.read_response().status, 503);
  first.send("x");
  EXPECT_EQ(first.read_response().status, 200);
}

TEST_F(HttpServerTest, RefusesWhatIsNotHttp) {
  start();
  for (const char* bytes : {"hello\r\n\r\n", "GET / HTTP/3.0\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n",
                            "GET /items/1 HTTP/1.1\r\nno colon here\r\n\r\n",
                            "POST /echo HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
                            "POST /echo HTTP/1.1\r\nContent-Length: 3\r\n"
                            "Transfer-Encoding: chunked\r\n\r\n"}) {
    RawClient client(server->port());
    client.send(bytes);
    EXPECT_EQ(client.read_response().status, 400) << bytes;
    EXPECT_TRUE(client.closed_within(3s));
  }
}

TEST_F(HttpServerTest, SlowHeadersAndBodiesTimeOut) {
  HttpServerConfig config;
  config.header_timeout = 200ms;
  config.body_timeout = 200ms;
  start(config);
  RawClient headers(server->port());
  RawClient body(server->port());
  body.send("POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\n");
  // Every byte comes in time; the whole does not.
  for (int i = 0; i < 8; ++i) {
    headers.send(i == 0 ? "GET /items/1 HTTP/1.1\r\n" : "X");
    body.send("x");
    std::this_thread::sleep_for(50ms);
  }
  EXPECT_EQ(headers.read_response().status, 408);
  EXPECT_EQ(body.read_response().status, 408);
}

TEST_F(HttpServerTest, IdleConnectionIsClosedWithoutAWord) {
  HttpServerConfig config;
  config.idle_timeout = 100ms;
  start(config);
  RawClient client(server->port());
  EXPECT_EQ(client.read_until("never"), "");
}

TEST_F(HttpServerTest, ConnectionsOverTheLimitAreRefusedAtOnce) {
  HttpServerConfig config;
  config.connection_limit = 2;
  start(config);
  RawClient first(server->port());
  RawClient second(server->port());
  first.send(post("/echo", "1"));
  second.send(post("/echo", "2"));
  EXPECT_EQ(first.read_response().status, 200);
  EXPECT_EQ(second.read_response().status, 200);
  RawClient third(server->port());
  EXPECT_EQ(third.read_response().status, 503);
}

TEST_F(HttpServerTest, HandlerThatFailsGivesAnInternalErrorAndNothingElse) {
  start();
  RawClient client(server->port());
  for (const char* path : {"/throw", "/forget"}) {
    client.send("GET " + std::string(path) + " HTTP/1.1\r\nHost: t\r\n\r\n");
    const auto response = client.read_response();
    EXPECT_EQ(response.status, 500) << path;
    EXPECT_EQ(response.body, "refused");
  }
}

TEST_F(HttpServerTest, AnswersFromAnotherThread) {
  start();
  RawClient client(server->port());
  client.send(post("/hold", ""));
  auto answer = responder();
  std::jthread([&] { answer->send({202, {}, "later"}); }).join();
  const auto response = client.read_response();
  EXPECT_EQ(response.status, 202);
  EXPECT_EQ(response.body, "later");
}

TEST_F(HttpServerTest, StreamsPieceByPieceAndKeepsTheConnection) {
  start();
  RawClient client(server->port());
  client.send(post("/hold", ""));
  auto answer = responder();
  answer->begin_stream({{{"Content-Type", "text/event-stream"}}, "", 10s});
  answer->write("data: 1\n\n");
  EXPECT_THAT(client.read_until("data: 1\n\n\r\n"), HasSubstr("Transfer-Encoding: chunked"));
  answer->write("data: 2\n\n");
  answer->end();
  client.read_until("0\r\n\r\n");
  client.send(post("/echo", "next"));
  EXPECT_EQ(client.read_response().body, "next");
}

TEST_F(HttpServerTest, StreamsToHttp10WithoutChunks) {
  start();
  RawClient client(server->port());
  client.send("POST /hold HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
  auto answer = responder();
  answer->begin_stream({});
  answer->write("plain");
  answer->end();
  const auto response = client.read_response();
  EXPECT_EQ(response.body, "plain");
  EXPECT_FALSE(response.headers.contains("transfer-encoding"));
  EXPECT_TRUE(client.closed_within(3s));
}

TEST_F(HttpServerTest, SilentStreamIsPinged) {
  start();
  RawClient client(server->port());
  client.send(post("/hold", ""));
  auto answer = responder();
  answer->begin_stream({{}, ": ping\n\n", 50ms});
  client.read_until(": ping\n\n");
  client.read_until(": ping\n\n");
  answer->write("data");
  EXPECT_THAT(client.read_until("data"), HasSubstr("data"));
}

TEST_F(HttpServerTest, NoticesAClientThatLeavesBeforeTheAnswer) {
  start();
  RawClient client(server->port());
  client.send(post("/hold", "body"));
  auto answer = responder();
  client.close();
  EXPECT_TRUE(closed_within(1s));
  answer->send({200, {}, "for nobody"});
}

TEST_F(HttpServerTest, NoticesAClientThatLeavesAStreamWithoutAWrite) {
  start();
  RawClient client(server->port());
  client.send(post("/hold", ""));
  auto answer = responder();
  answer->begin_stream({});
  answer->write("first");
  client.read_until("first");
  client.close();
  EXPECT_TRUE(closed_within(1s));
}

TEST_F(HttpServerTest, LateCloseCallbackRunsAtOnce) {
  start();
  RawClient client(server->port());
  client.send(post("/hold", ""));
  auto answer = responder();
  client.close();
  ASSERT_TRUE(closed_within(1s));
  std::promise<void> second;
  answer->on_close([&] { second.set_value(); });
  EXPECT_EQ(second.get_future().wait_for(1s), std::future_status::ready);
}

TEST_F(HttpServerTest, FinishedAnswerIsNoClosing) {
  start();
  {
    RawClient client(server->port());
    client.send(post("/hold", ""));
    responder()->send({200, {}, "done"});
    EXPECT_EQ(client.read_response().status, 200);
  }
  EXPECT_FALSE(closed_within(100ms));
}

TEST_F(HttpServerTest, StreamWhoseResponderIsLostBreaksOff) {
  start();
  RawClient client(server->port());
  client.send(post("/hold", ""));
  auto answer = responder();
  answer->begin_stream({});
  answer->write("part");
  client.read_until("part");
  answer.reset();
  EXPECT_THAT(client.read_until("0\r\n\r\n"), testing::Not(HasSubstr("0\r\n\r\n")));
}

TEST_F(HttpServerTest, AnswerPostedOnTheExecutorComesBeforeTheDropOfAnotherThread) {
  start();
  RawClient client(server->port());
  client.send(post("/hold", ""));
  auto last = responder();
  ASSERT_TRUE(last);
  std::promise<void> answered;
  std::promise<void> dropped;
  last->post([&, raw = last.get()] {
    raw->send({200, {}, "answer"});
    answered.set_value();
    dropped.get_future().wait_for(5s);  // the io thread is still in this task
  });
  answered.get_future().wait_for(5s);
  last.reset();
  dropped.set_value();
  EXPECT_EQ(client.read_response().status, 200);
}

TEST_F(HttpServerTest, ClientThatDoesNotReadIsDropped) {
  HttpServerConfig config;
  config.unsent_limit = 1 << 20;
  start(config);
  RawClient client(server->port());
  client.send(post("/hold", ""));
  auto answer = responder();
  answer->begin_stream({});
  for (int i = 0; i < 64; ++i) answer->write(std::string(1 << 18, 'x'));
  EXPECT_TRUE(closed_within(2s));
}

TEST_F(HttpServerTest, TasksRunOnTheExecutorInOrderAndAfterTheirDelay) {
  start();
  RawClient client(server->port());
  client.send(post("/hold", ""));
  auto answer = responder();
  std::vector<int> order;
  std::promise<void> done;
  answer->post([&] { order.push_back(3), done.set_value(); }, 50ms);
  answer->post([&] { order.push_back(1); });
  answer->post([&] { order.push_back(2); });
  ASSERT_EQ(done.get_future().wait_for(2s), std::future_status::ready);
  EXPECT_THAT(order, testing::ElementsAre(1, 2, 3));
}

TEST_F(HttpServerTest, StopLetsOpenAnswersEnd) {
  start();
  RawClient busy(server->port());
  RawClient idle(server->port());
  busy.send(post("/hold", ""));
  auto answer = responder();
  std::jthread stopper([&] { server->stop(5s); });
  EXPECT_TRUE(idle.closed_within(1s));
  answer->send({200, {}, "in time"});
  const auto response = busy.read_response();
  EXPECT_EQ(response.body, "in time");
  EXPECT_EQ(response.headers.at("connection"), "close");
  stopper.join();
}

TEST_F(HttpServerTest, StopCutsWhatOutlastsTheGrace) {
  start();
  RawClient client(server->port());
  client.send(post("/hold", ""));
  auto answer = responder();
  const auto begin = std::chrono::steady_clock::now();
  server->stop(100ms);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
  EXPECT_TRUE(closed_within(0ms));
  server.reset();
  answer->send({200, {}, "to a server that is gone"});
}

TEST(HttpServerStartTest, RefusesOtherThanLoopback) {
  for (const char* host : {"0.0.0.0", "192.168.1.1", "example.org", "", "::"}) {
    const auto started = HttpServer::start({host, 0}, {}, refusal);
    ASSERT_FALSE(started) << host;
    EXPECT_EQ(started.error().code, Errc::kInvalidArgument);
  }
}

TEST(HttpServerStartTest, PortInUseIsAnErrorThatNamesIt) {
  const auto first = HttpServer::start({"127.0.0.1", 0}, {}, refusal);
  ASSERT_TRUE(first);
  const auto second = HttpServer::start({"127.0.0.1", (*first)->port()}, {}, refusal);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::kIo);
  EXPECT_THAT(second.error().what, HasSubstr(std::to_string((*first)->port())));
}

}  // namespace
}  // namespace moesaic
