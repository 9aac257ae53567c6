#include "common/http/client.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "common/http/server.hpp"
#include "tests/unit/http/raw_server.hpp"

namespace moesaic {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using Clock = std::chrono::steady_clock;
using Connection = RawServer::Connection;

constexpr auto kPatience = 5s;

std::string with_length(std::string_view body) {
  return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         std::string(body);
}

/// A server that answers every request of every connection with the same bytes.
std::unique_ptr<RawServer> always(std::string answer) {
  return std::make_unique<RawServer>([answer = std::move(answer)](Connection connection) {
    while (!connection.read_request().empty() && connection.send(answer)) {
    }
  });
}

/// A server that sends the pieces of one answer and closes.
std::unique_ptr<RawServer> once(std::vector<std::string> pieces) {
  return std::make_unique<RawServer>([pieces = std::move(pieces)](Connection connection) {
    if (connection.read_request().empty()) return;
    for (const auto& piece : pieces) {
      connection.send(piece);
      std::this_thread::sleep_for(10ms);
    }
  });
}

/// A port that nobody listens on.
std::uint16_t dead_port() {
  return RawServer([](Connection) {}).port();
}

struct Lines {
  std::vector<std::string> got;
  HttpClient::LineSink sink() {
    return [this](std::string_view line) {
      got.emplace_back(line);
      return true;
    };
  }
};

TEST(HttpClientTest, TalksToOurOwnServer) {
  HttpRouter router;
  router.add("POST", "/echo", [](const HttpRequest& request, auto responder) {
    responder->send(
        {201, {{"X-Seen", std::string(*request.headers.find("X-Sent"))}}, request.body});
  });
  router.add("GET", "/void", [](const HttpRequest&, auto responder) {
    responder->send({204, {}, ""});
  });
  HttpServerConfig config;
  config.port = 0;
  auto server = HttpServer::start(config, std::move(router), [](const HttpFault&) {
    return HttpAnswer{404, {}, "none"};
  });
  ASSERT_TRUE(server) << server.error().what;
  const auto base = "http://localhost:" + std::to_string((*server)->port());

  HttpClient client;
  const std::string big(1 << 20, 'x');
  const auto echo = client.request("POST", base + "/echo", big, {{"X-Sent", "yes"}}, kPatience);
  ASSERT_TRUE(echo) << echo.error().what;
  EXPECT_EQ(echo->status, 201U);
  EXPECT_EQ(echo->headers.find("x-seen"), "yes");
  EXPECT_TRUE(echo->body == big);
  EXPECT_EQ(client.request("GET", base + "/nothing", "", {}, kPatience)->status, 404U);
  EXPECT_EQ(client.request("GET", base + "/void", "", {}, kPatience)->status, 204U);
  EXPECT_EQ(client.request("HEAD", base + "/void", "", {}, kPatience)->body, "");
}

TEST(HttpClientTest, KeepsItsConnectionToOneHost) {
  std::atomic<int> connections{0};
  RawServer server([&](Connection connection) {
    ++connections;
    while (!connection.read_request().empty() && connection.send(with_length("a"))) {
    }
  });
  HttpClient client;
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(client.request("GET", server.url(), "", {}, kPatience));
  }
  EXPECT_EQ(connections, 1);
}

TEST(HttpClientTest, ConnectsAgainWhenTheServerClosedMeanwhile) {
  std::atomic<int> connections{0};
  RawServer server([&](Connection connection) {
    ++connections;
    connection.read_request();
    connection.send(with_length("a"));
  });
  HttpClient client;
  for (int i = 0; i < 3; ++i) {
    const auto answer = client.request("GET", server.url(), "", {}, kPatience);
    ASSERT_TRUE(answer) << answer.error().what;
    std::this_thread::sleep_for(20ms);
  }
  EXPECT_EQ(connections, 3);
}

TEST(HttpClientTest, SendsWhatItWasGiven) {
  std::string seen;
  RawServer server([&](Connection connection) {
    seen = connection.read_request();
    connection.send(with_length(""));
  });
  HttpClient client;
  ASSERT_TRUE(client.request("PUT", server.url("/a?b=c"), "body", {{"A", "b"}}, kPatience));
  EXPECT_THAT(seen, StartsWith("PUT /a?b=c HTTP/1.1\r\n"));
  EXPECT_THAT(seen, HasSubstr("Host: 127.0.0.1:" + std::to_string(server.port()) + "\r\n"));
  EXPECT_THAT(seen, HasSubstr("\r\nA: b\r\n"));
  EXPECT_THAT(seen, HasSubstr("\r\n\r\nbody"));
}

TEST(HttpClientTest, NamesWhatItCouldNotReach) {
  HttpClient client;
  const auto port = std::to_string(dead_port());
  const auto refused = client.request("GET", "http://127.0.0.1:" + port + "/x", "", {}, kPatience);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kUnavailable);
  EXPECT_THAT(refused.error().what, HasSubstr("127.0.0.1:" + port + "/x: "));
  const auto nobody = client.request("GET", "http://no-such-host.invalid/", "", {}, kPatience);
  ASSERT_FALSE(nobody);
  EXPECT_EQ(nobody.error().code, Errc::kUnavailable);
  EXPECT_THAT(nobody.error().what, HasSubstr("no-such-host.invalid:80"));
  EXPECT_EQ(client.request("GET", "https://a/", "", {}, kPatience).error().code,
            Errc::kUnsupported);
}

TEST(HttpClientTest, AHeaderCannotSmuggleALine) {
  const auto server = always(with_length("a"));
  HttpClient client;
  const auto answer = client.request("GET", server->url(), "", {{"A", "b\r\nC: d"}}, kPatience);
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::kInvalidArgument);
}

TEST(HttpClientTest, GivesUpAtItsTimeLimit) {
  RawServer server([](Connection connection) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na");
    connection.wait_for_close();
  });
  HttpClient client;
  const auto start = Clock::now();
  const auto answer = client.request("GET", server.url("/slow"), "", {}, 150ms);
  const auto took = Clock::now() - start;
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::kDeadlineExceeded);
  EXPECT_THAT(answer.error().what, HasSubstr("/slow: no answer within 150 ms"));
  EXPECT_GE(took, 150ms);
  EXPECT_LT(took, 1s);
}

TEST(HttpClientTest, TellsAnEarlyCloseFromAnAnswer) {
  HttpClient client;
  for (const char* bytes :
       {"", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"}) {
    const auto server = once({bytes});
    const auto answer = client.request("GET", server->url(), "", {}, kPatience);
    ASSERT_FALSE(answer) << bytes;
    EXPECT_EQ(answer.error().code, Errc::kUnavailable) << bytes << answer.error().what;
  }
}

TEST(HttpClientTest, BoundsWhatItReads) {
  HttpClient client({.header_bytes = 512, .body_bytes = 100, .line_bytes = 100});
  const std::string chunk = "40\r\n" + std::string(64, 'x') + "\r\n";
  const auto code = [&](const std::string& answer) {
    const auto server = always(answer);
    const auto got = client.request("GET", server->url(), "", {}, kPatience);
    EXPECT_FALSE(got);
    return got ? Errc{} : got.error().code;
  };
  EXPECT_EQ(code("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n"), Errc::kTooLarge);
  EXPECT_EQ(code(with_length(std::string(101, 'x'))), Errc::kTooLarge);
  EXPECT_EQ(code("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + chunk),
            Errc::kTooLarge);
  EXPECT_EQ(code("HTTP/1.1 200 OK\r\nA: " + std::string(1000, 'x') + "\r\n\r\n"), Errc::kTooLarge);
  EXPECT_EQ(code("SSH-2.0-OpenSSH_9.2\r\n\r\n"), Errc::kCorrupt);
}

TEST(HttpClientTest, StreamsLinesWhereverTheChunksAreCut) {
  const auto server =
      once({"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "4\r\n{\"a\"",
            "\r\n6\r\n:1}\n{\"\r\n", "5;x=y\r\nb\":2}\r\n1\r\n\n\r\n", "4\r\nrest\r\n0\r\n\r\n"});
  HttpClient client;
  Lines lines;
  const auto result = client.stream(server->url(), "{}", {}, kPatience, kPatience, lines.sink());
  ASSERT_TRUE(result) << result.error().what;
  EXPECT_THAT(lines.got, ElementsAre(R"({"a":1})", R"({"b":2})", "rest"));
}

TEST(HttpClientTest, AStreamThatBreaksIsAnErrorAfterItsLines) {
  const auto server =
      once({"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\none\nt\r\n"});
  HttpClient client;
  Lines lines;
  const auto result = client.stream(server->url(), "{}", {}, kPatience, kPatience, lines.sink());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::kUnavailable);
  EXPECT_THAT(lines.got, ElementsAre("one"));
}

TEST(HttpClientTest, AStreamMayBeSilentOnlySoLong) {
  RawServer server([](Connection connection) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n");
    connection.wait_for_close();
  });
  HttpClient client;
  Lines lines;
  const auto result = client.stream(server.url(), "{}", {}, kPatience, 100ms, lines.sink());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::kDeadlineExceeded);
  EXPECT_THAT(result.error().what, HasSubstr("within 100 ms"));
  EXPECT_THAT(lines.got, ElementsAre("one"));
}

TEST(HttpClientTest, AStreamHasNoEndlessLine) {
  RawServer server([](Connection connection) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    while (connection.send("40\r\n" + std::string(64, 'x') + "\r\n")) {
    }
  });
  HttpClient client({.line_bytes = 10'000});
  const auto result = client.stream(server.url(), "{}", {}, kPatience, kPatience,
                                    [](std::string_view) { return true; });
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::kTooLarge);
}

TEST(HttpClientTest, ARefusedStreamTellsItsStatusAndText) {
  const auto server = always("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nsorry");
  HttpClient client;
  Lines lines;
  const auto result = client.stream(server->url(), "{}", {}, kPatience, kPatience, lines.sink());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::kUnavailable);
  EXPECT_THAT(result.error().what, HasSubstr("HTTP 404: sorry"));
  EXPECT_TRUE(lines.got.empty());
}

TEST(HttpClientTest, TheSinkEndsAStream) {
  const auto server =
      once({"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\none\ntwo\n\r\n"});
  HttpClient client;
  int lines = 0;
  EXPECT_TRUE(client.stream(server->url(), "{}", {}, kPatience, kPatience,
                            [&](std::string_view) { return ++lines < 1; }));
  EXPECT_EQ(lines, 1);
}

TEST(HttpClientTest, CancelEndsAStreamAndAllThatFollows) {
  RawServer server([](Connection connection) {
    connection.read_request();
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.wait_for_close();
  });
  HttpClient client;
  std::thread other([&] {
    std::this_thread::sleep_for(50ms);
    client.cancel();
  });
  const auto start = Clock::now();
  const auto result =
      client.stream(server.url(), "{}", {}, kPatience, 60s, [](std::string_view) { return true; });
  other.join();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::kCancelled);
  EXPECT_LT(Clock::now() - start, 2s);
  EXPECT_EQ(client.request("GET", server.url(), "", {}, kPatience).error().code, Errc::kCancelled);
}

}  // namespace
}  // namespace moesaic
