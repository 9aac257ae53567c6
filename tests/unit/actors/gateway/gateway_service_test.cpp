#include "actors/gateway/gateway_service.hpp"

#include <gmock/gmock.h>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <mutex>

#include "actors/gateway/gateway.hpp"
#include "common/trace/exporter.hpp"
#include "tests/support/actor_fixture.hpp"
#include "tests/support/trace_collector.hpp"
#include "tests/unit/actors/gateway/fake_parts.hpp"

namespace moesaic {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::Not;

/// A client without a socket: what it was sent, and the tasks of its executor for the test to run.
class FakeResponder final : public Responder {
 public:
  struct Client {
    std::optional<HttpAnswer> answer;
    HttpHeaders stream_headers;
    std::string stream;
    bool streaming = false;
    bool ended = false;
    std::function<void()> on_close;
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::function<void()>> tasks;
    std::vector<std::function<void()>> delayed;

    /// Runs the next task, for which it waits.
    void run_one() {
      std::unique_lock lock(mutex);
      if (!changed.wait_for(lock, 5s, [this] { return !tasks.empty(); })) {
        ADD_FAILURE() << "no task came";
        return;
      }
      const auto task = std::move(tasks.front());
      tasks.pop_front();
      lock.unlock();
      task();
    }
    /// Runs those that are there.
    void run_all() {
      for (;;) {
        {
          const std::lock_guard lock(mutex);
          if (tasks.empty()) return;
        }
        run_one();
      }
    }
  };

  explicit FakeResponder(std::shared_ptr<Client> client) : client_(std::move(client)) {}

  void send(HttpAnswer answer) override { client_->answer = std::move(answer); }
  void begin_stream(StreamOptions options) override {
    client_->streaming = true;
    client_->stream_headers = options.headers;
  }
  void write(std::string piece) override { client_->stream += piece; }
  void end() override { client_->ended = true; }
  void on_close(std::function<void()> callback) override {
    client_->on_close = std::move(callback);
  }
  void post(std::function<void()> task, std::chrono::milliseconds delay) override {
    const std::lock_guard lock(client_->mutex);
    if (delay.count() > 0) {
      client_->delayed.push_back(std::move(task));
      return;
    }
    client_->tasks.push_back(std::move(task));
    client_->changed.notify_all();
  }

 private:
  std::shared_ptr<Client> client_;
};

using Client = FakeResponder::Client;

class GatewayServiceTest : public test::ActorFixture {
 protected:
  GatewayServiceTest() {
    decoder = system.spawn(test::fake_decoder, engine);
    vision = system.spawn(test::fake_vision, tower);
    gateway = system.spawn(moesaic::gateway, Members::kFixed, decoder, vision);
    run();
    make_service(8);
  }
  // Open jobs refer to the test.
  ~GatewayServiceTest() override {
    caf::anon_send_exit(gateway, caf::exit_reason::kill);
    run();
  }

  void make_service(std::size_t max_requests, Tracer tracer = {}) {
    const auto demo = std::filesystem::path(MOESAIC_SOURCE_DIR) / "configs/models/ernie-vl-demo";
    GatewayServiceConfig setup;
    setup.model.name = "demo";
    setup.model.tokenizer = tokenizer = Tokenizer::load(demo).value();
    setup.model.config = load_model_config(demo).value();
    setup.model.preprocess = PreprocessConfig::load(demo).value();
    setup.model.max_context = 500;
    setup.version.version = "1.2.3";
    setup.max_requests = max_requests;
    setup.tracer = std::move(tracer);
    service = std::make_unique<GatewayService>(setup, gateway, [this] { return ready; });
    router = {};
    service->add_routes(router);
  }

  std::shared_ptr<Client> call(const std::string& method, const std::string& path,
                               const std::string& body = "",
                               const std::string& type = "application/json",
                               const std::string& traceparent = "") {
    const auto client = std::make_shared<Client>();
    auto match = router.find(method, path);
    if (!match.handler) {
      ADD_FAILURE() << "no route " << path;
      return client;
    }
    HttpRequest request{method, path, match.wildcard, {{"Content-Type", type}}, body, "id"};
    if (!traceparent.empty()) request.headers.add("Traceparent", traceparent);
    (*match.handler)(std::move(request), std::make_shared<FakeResponder>(client));
    return client;
  }
  /// A chat request that has reached the decoder, or been answered.
  std::shared_ptr<Client> chat(const std::string& more = "") {
    auto client = call("POST", "/v1/chat/completions",
                       R"({"messages":[{"role":"user","content":"hi"}])" + more + "}");
    client->run_one();
    run();
    client->run_all();
    return client;
  }
  /// The decoder says this to the last request.
  void emit(const std::shared_ptr<Client>& client, std::vector<std::int32_t> tokens,
            std::optional<FinishReason> finished = {}, std::optional<Error> error = {}) {
    engine->emit({{engine->requests.back()->id, std::move(tokens), finished, std::move(error)}});
    run();
    client->run_all();
  }
  std::vector<std::int32_t> ids(std::string_view text) { return tokenizer->encode(text).value(); }

  static boost::json::value body(const std::shared_ptr<Client>& client) {
    return client->answer ? boost::json::parse(client->answer->body) : boost::json::value();
  }
  static std::string code(const std::shared_ptr<Client>& client) {
    return std::string(body(client).at("error").at("code").as_string());
  }

  test::FakeDecoderPtr engine = std::make_shared<test::FakeDecoder>();
  test::FakeVisionPtr tower = std::make_shared<test::FakeVision>();
  std::shared_ptr<const Tokenizer> tokenizer;
  DecoderActor decoder;
  VisionEncoderActor vision;
  GatewayActor gateway;
  ReadyState ready = ReadyState::kReady;
  HttpRouter router;
  std::unique_ptr<GatewayService> service;
};

TEST_F(GatewayServiceTest, AnswersAChat) {
  const auto client = chat(R"(,"max_tokens":20,"what":1)");
  ASSERT_EQ(engine->requests.size(), 1U);
  EXPECT_EQ(engine->requests[0]->max_tokens, 20U);
  auto tokens = ids("A red circle.");
  emit(client, tokens);
  EXPECT_FALSE(client->answer);
  emit(client, {2}, FinishReason::kStop);
  ASSERT_TRUE(client->answer);
  EXPECT_EQ(client->answer->status, 200U);
  EXPECT_EQ(client->answer->headers.find("X-Ignored-Parameters"), "what");
  const auto answer = body(client);
  const auto& choice = answer.at("choices").at(0);
  EXPECT_EQ(choice.at("message").at("content"), "A red circle.");
  EXPECT_FALSE(choice.at("message").as_object().contains("reasoning_content"));
  EXPECT_EQ(choice.at("finish_reason"), "stop");
  EXPECT_EQ(answer.at("usage").at("completion_tokens").to_number<std::size_t>(), tokens.size() + 1);
  EXPECT_EQ(answer.at("usage").at("prompt_tokens").to_number<std::size_t>(),
            engine->requests[0]->prompt.size());
}

TEST_F(GatewayServiceTest, StreamsAChat) {
  const auto client = chat(R"(,"stream":true,"stream_options":{"include_usage":true})");
  EXPECT_FALSE(client->streaming);
  emit(client, ids("red"));
  EXPECT_TRUE(client->streaming);
  EXPECT_EQ(client->stream_headers.find("content-type"), "text/event-stream");
  EXPECT_THAT(client->stream, HasSubstr(R"("delta":{"role":"assistant","content":""})"));
  EXPECT_THAT(client->stream, HasSubstr(R"("delta":{"content":"red"})"));
  emit(client, {2}, FinishReason::kLength);
  EXPECT_THAT(client->stream, HasSubstr(R"("finish_reason":"length")"));
  EXPECT_THAT(client->stream, HasSubstr(R"("choices":[],"usage":{"prompt_tokens")"));
  EXPECT_TRUE(client->stream.ends_with("data: [DONE]\n\n"));
  EXPECT_TRUE(client->ended);
}

TEST_F(GatewayServiceTest, SilentStreamBeginsBeforeItsFirstToken) {
  const auto client = chat(R"(,"stream":true)");
  ASSERT_EQ(client->delayed.size(), 1U);
  client->delayed[0]();
  EXPECT_TRUE(client->streaming);
  const auto before = client->stream;
  emit(client, ids("red"), FinishReason::kStop);
  EXPECT_TRUE(client->stream.starts_with(before));
  EXPECT_EQ(client->stream.find("assistant"), client->stream.rfind("assistant"));
}

TEST_F(GatewayServiceTest, ReasoningIsReportedTwiceUnderItsNames) {
  const auto client = chat(R"(,"enable_thinking":true)");
  auto tokens = ids("look");
  tokens.push_back(4082);  // </think>
  emit(client, tokens);
  emit(client, ids("done"), FinishReason::kStop);
  const auto message = body(client).at("choices").at(0).at("message");
  EXPECT_EQ(message.at("reasoning_content"), "look");
  EXPECT_EQ(message.at("reasoning"), "look");
  EXPECT_EQ(message.at("content"), "done");
  EXPECT_EQ(body(client).at("usage").at("completion_tokens_details").at("reasoning_tokens"),
            static_cast<std::int64_t>(tokens.size()));
}

TEST_F(GatewayServiceTest, StopStringEndsTheAnswerAndTheSequence) {
  const auto client = chat(R"(,"stop":"circle")");
  emit(client, ids("A red circle at the top"));
  ASSERT_TRUE(client->answer);
  const auto choice = body(client).at("choices").at(0);
  EXPECT_EQ(choice.at("message").at("content"), "A red ");
  EXPECT_EQ(choice.at("finish_reason"), "stop");
  run();
  EXPECT_THAT(engine->cancelled, testing::ElementsAre(engine->requests[0]->id));
}

TEST_F(GatewayServiceTest, ErrorBeforeTheFirstTokenHasItsOwnStatus) {
  engine->refuse = Error{Errc::kOverloaded, "queue full"};
  const auto client = chat(R"(,"stream":true)");
  ASSERT_TRUE(client->answer);
  EXPECT_EQ(client->answer->status, 503U);
  EXPECT_EQ(code(client), "server_overloaded");
  EXPECT_TRUE(client->answer->headers.find("Retry-After"));
}

TEST_F(GatewayServiceTest, ErrorInAStreamIsItsLastEvent) {
  const auto client = chat(R"(,"stream":true)");
  emit(client, ids("A"));
  emit(client, {}, FinishReason::kError, Error{Errc::kDeadlineExceeded, ""});
  EXPECT_THAT(client->stream, HasSubstr(R"(data: {"error":{)"));
  EXPECT_THAT(client->stream, HasSubstr("queue_timeout"));
  EXPECT_THAT(client->stream, Not(HasSubstr(R"("finish_reason":"stop")")));
  EXPECT_TRUE(client->stream.ends_with("data: [DONE]\n\n"));
  EXPECT_TRUE(client->ended);
}

TEST_F(GatewayServiceTest, ClientThatLeavesFreesItsSequence) {
  const auto client = chat();
  client->on_close();
  run();
  EXPECT_THAT(engine->cancelled, testing::ElementsAre(engine->requests[0]->id));
}

TEST_F(GatewayServiceTest, ClientThatLeavesDuringPreparationSubmitsNothing) {
  const auto client =
      call("POST", "/v1/chat/completions", R"({"messages":[{"role":"user","content":"hi"}]})");
  client->on_close();
  client->run_one();
  run();
  EXPECT_TRUE(engine->requests.empty());
}

TEST_F(GatewayServiceTest, AnswersATextCompletion) {
  const auto client = call("POST", "/v1/completions", R"({"prompt":[5,6,7],"max_tokens":3})");
  client->run_one();
  run();
  ASSERT_EQ(engine->requests.size(), 1U);
  EXPECT_THAT(engine->requests[0]->prompt, testing::ElementsAre(5, 6, 7));
  emit(client, ids("red"), FinishReason::kLength);
  EXPECT_EQ(body(client).at("object"), "text_completion");
  EXPECT_EQ(body(client).at("choices").at(0).at("text"), "red");
}

TEST_F(GatewayServiceTest, BrokenImageIsFoundBeforeAnythingRuns) {
  const auto client = call("POST", "/v1/chat/completions",
                           R"({"messages":[{"role":"user","content":[{"type":"image_url",
                               "image_url":{"url":"data:image/png;base64,aGVsbG8="}}]}]})");
  client->run_one();
  EXPECT_EQ(client->answer->status, 400U);
  EXPECT_EQ(code(client), "invalid_image");
  EXPECT_EQ(body(client).at("error").at("param"), "messages[0].content[0].image_url.url");
  EXPECT_TRUE(tower->items.empty());
}

TEST_F(GatewayServiceTest, WrongModelIsNotFound) {
  const auto client = chat(R"(,"model":"nothing-like-it")");
  EXPECT_EQ(client->answer->status, 404U);
  EXPECT_EQ(code(client), "model_not_found");
  EXPECT_EQ(call("GET", "/v1/models/other")->answer->status, 404U);
  EXPECT_EQ(call("GET", "/v1/models/demo")->answer->status, 200U);
}

TEST_F(GatewayServiceTest, OnlyJsonIsTaken) {
  for (const char* type : {"text/plain", "", "application/jsonx", "application/x-json"}) {
    EXPECT_EQ(call("POST", "/v1/completions", "{}", type)->answer->status, 415U) << type;
  }
  const auto client = call("POST", "/v1/completions", "{}", "Application/JSON ; charset=utf-8");
  client->run_one();
  EXPECT_EQ(code(client), "missing_required_parameter");
}

TEST_F(GatewayServiceTest, RefusesWhileItIsNotReady) {
  const std::pair<ReadyState, const char*> states[] = {
      {ReadyState::kLoading, "loading"},
      {ReadyState::kDraining, "draining"},
      {ReadyState::kUnavailable, "expert_shard_unavailable"}};
  for (const auto& [state, expected] : states) {
    ready = state;
    const auto client = call("POST", "/v1/completions", R"({"prompt":"a"})");
    EXPECT_EQ(client->answer->status, 503U);
    EXPECT_EQ(code(client), expected);
    EXPECT_EQ(call("GET", "/ready")->answer->status, 503U);
    EXPECT_EQ(call("GET", "/health")->answer->status, 200U);
  }
  ready = ReadyState::kReady;
  EXPECT_EQ(call("GET", "/ready")->answer->body, R"({"ready":true})");
}

TEST_F(GatewayServiceTest, RefusesMoreOpenRequestsThanItsLimit) {
  make_service(1);
  const auto first = chat();
  const auto second = call("POST", "/v1/completions", R"({"prompt":"a"})");
  EXPECT_EQ(second->answer->status, 503U);
  EXPECT_EQ(code(second), "server_overloaded");
  EXPECT_TRUE(second->answer->headers.find("Retry-After"));
  emit(first, {2}, FinishReason::kStop);
  const auto third = call("POST", "/v1/completions", R"({"prompt":"a"})");
  EXPECT_FALSE(third->answer);
  third->run_one();
}

TEST_F(GatewayServiceTest, TellsItsVersionAndModel) {
  EXPECT_THAT(call("GET", "/version")->answer->body, HasSubstr(R"("version":"1.2.3")"));
  const auto models = body(call("GET", "/v1/models"));
  EXPECT_EQ(models.at("data").at(0).at("id"), "demo");
  EXPECT_EQ(models.at("data").at(0).at("max_model_len"), 500);
  EXPECT_EQ(models.at("data").at(0).at("status"), "ready");
}

TEST_F(GatewayServiceTest, ARequestIsASpanOfTheClientsTrace) {
  test::TraceCollector collector;
  auto exporter = TraceExporter::start({.endpoint = collector.endpoint(), .service = "gateway"});
  ASSERT_TRUE(exporter) << exporter.error().what;
  make_service(8, (*exporter)->tracer());
  const auto client =
      call("POST", "/v1/chat/completions", R"({"messages":[{"role":"user","content":"hi"}]})",
           "application/json", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
  client->run_one();
  run();
  client->run_all();
  ASSERT_EQ(engine->requests.size(), 1U);
  const auto& request = *engine->requests[0];
  EXPECT_EQ(request.request_id, "id");
  EXPECT_EQ(request.trace.trace_id[0], 0x0a);
  EXPECT_TRUE(request.trace.sampled);
  emit(client, ids("red"), FinishReason::kLength);
  EXPECT_EQ(chat(R"(,"max_tokens":-1)")->answer->status, 400U);
  service.reset();
  exporter->reset();

  const auto spans = collector.all_spans();
  ASSERT_EQ(spans.size(), 4U);
  const auto& prepare = spans[0];
  const auto& root = spans[1];
  const auto& refused = spans[3];
  EXPECT_EQ(prepare.at("name"), "prepare");
  EXPECT_EQ(prepare.at("parentSpanId"), root.at("spanId"));
  EXPECT_EQ(root.at("name"), "request");
  EXPECT_EQ(root.at("traceId"), "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(root.at("parentSpanId"), "b7ad6b7169203331");
  const auto value = [](const boost::json::object& span, std::string_view key) {
    return boost::json::serialize(test::attribute(span, key));
  };
  EXPECT_EQ(value(root, "http.route"), R"({"stringValue":"/v1/chat/completions"})");
  EXPECT_EQ(value(root, "http.response.status_code"), R"({"intValue":"200"})");
  EXPECT_EQ(value(root, "moesaic.request.id"), R"({"stringValue":"id"})");
  EXPECT_EQ(value(root, "gen_ai.operation.name"), R"({"stringValue":"chat"})");
  EXPECT_EQ(value(root, "gen_ai.request.model"), R"({"stringValue":"demo"})");
  EXPECT_EQ(value(root, "gen_ai.usage.input_tokens"),
            R"({"intValue":")" + std::to_string(request.prompt.size()) + R"("})");
  EXPECT_EQ(value(root, "gen_ai.response.finish_reasons"),
            R"({"arrayValue":{"values":[{"stringValue":"length"}]}})");
  EXPECT_EQ(value(refused, "http.response.status_code"), R"({"intValue":"400"})");
  EXPECT_EQ(value(refused, "error.type"), R"({"stringValue":"invalid_value"})");
}

}  // namespace
}  // namespace moesaic
