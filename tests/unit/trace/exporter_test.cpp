#include "common/trace/exporter.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <set>
#include <thread>

#include "common/trace/traceparent.hpp"
#include "tests/support/trace_collector.hpp"

namespace moesaic {
namespace {

namespace json = boost::json;
using namespace std::chrono_literals;
using test::attribute;
using test::TraceCollector;
using testing::HasSubstr;
using Clock = std::chrono::steady_clock;

const std::string kIncoming = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TraceConfig config(const std::string& endpoint) {
  TraceConfig out;
  out.endpoint = endpoint;
  out.service = "moesaic-test";
  out.instance = "node-1";
  out.version = "1.2.3";
  out.interval = 20ms;
  return out;
}

TEST(TraceExporterTest, ATreeOfSpansArrivesAsOtlpJson) {
  TraceCollector collector;
  {
    const auto exporter = TraceExporter::start(config(collector.endpoint()));
    ASSERT_TRUE(exporter) << exporter.error().what;
    const auto tracer = (*exporter)->tracer();
    ASSERT_TRUE(tracer.on());
    auto root = tracer.start_root("request", SpanKind::kServer, *parse_traceparent(kIncoming));
    ASSERT_TRUE(root.recording());
    auto child = tracer.start("prefill", SpanKind::kInternal, root.context());
    child.set("gen_ai.usage.input_tokens", std::int64_t{9'007'199'254'740'993});
    child.set("moesaic.cached", true);
    child.set("gen_ai.request.temperature", 0.5);
    child.set("gen_ai.request.model", std::string("demo \"x\""));
    child.set("gen_ai.response.finish_reasons", std::vector<std::string>{"stop"});
    child.fail("timeout");
    child.end();
    root.end();
  }
  EXPECT_EQ(collector.type(), "application/json");
  json::object resource;
  const auto spans = collector.all_spans(&resource);
  ASSERT_EQ(spans.size(), 2U);
  EXPECT_EQ(attribute(resource, "service.name"), json::parse(R"({"stringValue":"moesaic-test"})"));
  EXPECT_EQ(attribute(resource, "service.instance.id"), json::parse(R"({"stringValue":"node-1"})"));

  const auto& child = spans[0];
  const auto& root = spans[1];
  EXPECT_EQ(root.at("name"), "request");
  EXPECT_EQ(child.at("name"), "prefill");
  EXPECT_EQ(root.at("traceId"), "0af7651916cd43dd8448eb211c80319c");
  EXPECT_EQ(root.at("parentSpanId"), "b7ad6b7169203331");
  EXPECT_EQ(root.at("kind"), 2);
  EXPECT_FALSE(root.contains("status"));
  EXPECT_EQ(child.at("traceId"), root.at("traceId"));
  EXPECT_EQ(child.at("parentSpanId"), root.at("spanId"));
  EXPECT_NE(child.at("spanId"), root.at("spanId"));
  EXPECT_EQ(child.at("kind"), 1);
  EXPECT_EQ(child.at("status"), json::parse(R"({"code":2,"message":"timeout"})"));
  EXPECT_EQ(attribute(child, "gen_ai.usage.input_tokens"),
            json::parse(R"({"intValue":"9007199254740993"})"));
  EXPECT_EQ(attribute(child, "moesaic.cached"), json::parse(R"({"boolValue":true})"));
  EXPECT_EQ(attribute(child, "gen_ai.request.temperature"), json::parse(R"({"doubleValue":0.5})"));
  EXPECT_EQ(attribute(child, "gen_ai.request.model"),
            json::parse(R"({"stringValue":"demo \"x\""})"));
  EXPECT_EQ(attribute(child, "gen_ai.response.finish_reasons"),
            json::parse(R"({"arrayValue":{"values":[{"stringValue":"stop"}]}})"));
  EXPECT_EQ(attribute(child, "error.type"), json::parse(R"({"stringValue":"timeout"})"));

  const auto time = [](const json::object& span, const char* name) {
    return std::stoll(std::string(span.at(name).as_string()));
  };
  const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
                       std::chrono::system_clock::now().time_since_epoch())
                       .count();
  EXPECT_LT(now - time(root, "startTimeUnixNano"), 60'000'000'000);
  EXPECT_LE(time(root, "startTimeUnixNano"), time(child, "startTimeUnixNano"));
  EXPECT_LE(time(child, "startTimeUnixNano"), time(child, "endTimeUnixNano"));
  EXPECT_LE(time(child, "endTimeUnixNano"), time(root, "endTimeUnixNano"));
}

TEST(TraceExporterTest, SpansComeWhileTheProcessRuns) {
  TraceCollector collector;
  const auto exporter = TraceExporter::start(config(collector.endpoint()));
  ASSERT_TRUE(exporter);
  const auto tracer = (*exporter)->tracer();
  tracer.start_root("a", SpanKind::kServer, {}).end();
  EXPECT_TRUE(collector.wait_for_batches(1));
  tracer.start_root("b", SpanKind::kServer, {}).end();
  EXPECT_TRUE(collector.wait_for_batches(2));
  EXPECT_EQ((*exporter)->dropped(), 0U);
}

TEST(TraceExporterTest, ManySpansFromManyThreadsAllArrive) {
  TraceCollector collector;
  auto many = config(collector.endpoint());
  many.capacity = 10'000;
  {
    const auto exporter = TraceExporter::start(many);
    ASSERT_TRUE(exporter);
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; ++thread) {
      threads.emplace_back([tracer = (*exporter)->tracer()] {
        for (int i = 0; i < 500; ++i) tracer.start_root("x", SpanKind::kServer, {});
      });
    }
    for (auto& thread : threads) thread.join();
  }
  EXPECT_EQ(collector.all_spans().size(), 2000U);
}

TEST(TraceExporterTest, ACollectorThatIsDownCostsSpansNotMemory) {
  auto down = config("http://127.0.0.1:1");
  down.capacity = 100;
  down.interval = 10s;
  const auto exporter = TraceExporter::start(down);
  ASSERT_TRUE(exporter);
  const auto tracer = (*exporter)->tracer();
  for (int i = 0; i < 1000; ++i) tracer.start_root("x", SpanKind::kServer, {});
  EXPECT_EQ((*exporter)->dropped(), 900U);
}

TEST(TraceExporterTest, ARefusedBatchIsCounted) {
  TraceCollector collector(503);
  const auto exporter = TraceExporter::start(config(collector.endpoint()));
  ASSERT_TRUE(exporter);
  (*exporter)->tracer().start_root("x", SpanKind::kServer, {}).end();
  ASSERT_TRUE(collector.wait_for_batches(1));
  const auto end = Clock::now() + 5s;
  while ((*exporter)->dropped() == 0 && Clock::now() < end) std::this_thread::sleep_for(1ms);
  EXPECT_EQ((*exporter)->dropped(), 1U);
}

TEST(TraceExporterTest, ASilentCollectorHoldsNobodyUp) {
  TraceCollector collector(0);
  auto silent = config(collector.endpoint());
  silent.timeout = 200ms;
  auto exporter = TraceExporter::start(silent);
  ASSERT_TRUE(exporter);
  const auto tracer = (*exporter)->tracer();
  const auto start = Clock::now();
  for (int i = 0; i < 1000; ++i) tracer.start_root("x", SpanKind::kServer, {});
  EXPECT_LT(Clock::now() - start, 150ms);
  ASSERT_TRUE(collector.wait_for_batches(1));
  exporter->reset();
  EXPECT_LT(Clock::now() - start, 2s);
  tracer.start_root("late", SpanKind::kServer, {}).end();  // harmless
}

TEST(TracerTest, AnIncomingContextDecidesWhetherItsTraceIsSampled) {
  auto never = config("http://127.0.0.1:1");
  never.sample_ratio = 0;
  const auto exporter = TraceExporter::start(never);
  ASSERT_TRUE(exporter);
  const auto tracer = (*exporter)->tracer();
  EXPECT_FALSE(tracer.start_root("x", SpanKind::kServer, {}).recording());
  auto incoming = *parse_traceparent(kIncoming);
  EXPECT_TRUE(tracer.start_root("x", SpanKind::kServer, incoming).recording());
  incoming.sampled = false;
  const auto span = tracer.start_root("x", SpanKind::kServer, incoming);
  EXPECT_FALSE(span.recording());
  EXPECT_EQ(span.context(), incoming) << "handed through";
}

TEST(TracerTest, TheRatioIsThatOfTheTraces) {
  auto some = config("http://127.0.0.1:1");
  some.sample_ratio = 0.25;
  const auto exporter = TraceExporter::start(some);
  ASSERT_TRUE(exporter);
  const auto tracer = (*exporter)->tracer();
  int sampled = 0;
  std::set<std::string> ids;
  for (int i = 0; i < 4000; ++i) {
    const auto span = tracer.start_root("x", SpanKind::kServer, {});
    if (!span.recording()) continue;
    ++sampled;
    ids.insert(hex(span.context().trace_id));
  }
  EXPECT_NEAR(sampled, 1000, 150);  // more than 5 standard deviations of 27
  EXPECT_EQ(ids.size(), static_cast<std::size_t>(sampled));
}

TEST(TracerTest, OffRecordsNothingAndHandsTheContextThrough) {
  const auto exporter = TraceExporter::start(config(""));
  ASSERT_TRUE(exporter);
  const auto tracer = (*exporter)->tracer();
  EXPECT_FALSE(tracer.on());
  const auto incoming = *parse_traceparent(kIncoming);
  auto span = tracer.start_root("x", SpanKind::kServer, incoming);
  EXPECT_FALSE(span.recording());
  EXPECT_EQ(span.context(), incoming);
  span.set("a", true);
  span.fail("b");
  span.end();
  EXPECT_FALSE(Tracer().start("x", SpanKind::kInternal, incoming).recording());
}

TEST(TracerTest, ASpanEndsOnce) {
  TraceCollector collector;
  {
    const auto exporter = TraceExporter::start(config(collector.endpoint()));
    ASSERT_TRUE(exporter);
    const auto tracer = (*exporter)->tracer();
    auto span = tracer.start_root("a", SpanKind::kServer, {});
    span.end();
    span.end();
    auto moved = std::move(span);
    moved = tracer.start_root("b", SpanKind::kServer, {});
    moved = Span();
  }
  EXPECT_EQ(collector.all_spans().size(), 2U);
}

TEST(TraceExporterTest, RefusesWhatItCannotUse) {
  EXPECT_EQ(TraceExporter::start(config("https://a")).error().code, Errc::kUnsupported);
  EXPECT_THAT(TraceExporter::start(config("http://a:x")).error().what,
              HasSubstr("trace.endpoint: "));
  for (const double ratio : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
    auto odd = config("");
    odd.sample_ratio = ratio;
    EXPECT_EQ(TraceExporter::start(odd).error().code, Errc::kInvalidArgument) << ratio;
  }
}

}  // namespace
}  // namespace moesaic
