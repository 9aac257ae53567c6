#include "common/engine/stage_spans.hpp"

#include <gtest/gtest.h>

#include "common/trace/exporter.hpp"
#include "common/trace/traceparent.hpp"
#include "tests/support/trace_collector.hpp"

namespace moesaic {
namespace {

using namespace std::chrono_literals;

struct StageSpansTest : testing::Test {
  StageSpansTest() {
    request->prompt = {1, 2, 3};
    request->trace = *parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    sequence.request = request;
    sequence.tokens = {1, 2, 3, 4, 5};
    sequence.arrived = Sequence::Clock::now() - 1s;
  }
  /// What a collector gets.
  std::vector<boost::json::object> spans(std::string_view failure) {
    test::TraceCollector collector;
    {
      const auto exporter = TraceExporter::start({.endpoint = collector.endpoint()});
      EXPECT_TRUE(exporter) << exporter.error().what;
      trace_stages((*exporter)->tracer(), sequence, failure);
    }
    return collector.all_spans();
  }
  static std::int64_t time(const boost::json::object& span, const char* name) {
    return std::stoll(std::string(span.at(name).as_string()));
  }

  std::shared_ptr<GenerateRequest> request = std::make_shared<GenerateRequest>();
  Sequence sequence;
};

TEST_F(StageSpansTest, StagesFollowOneAnotherWithoutAGap) {
  sequence.begun = sequence.arrived + 300ms;
  sequence.first_token = sequence.arrived + 500ms;
  const auto got = spans("");
  ASSERT_EQ(got.size(), 3U);
  const char* const names[] = {"queue", "prefill", "decode"};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(got[i].at("name"), names[i]);
    EXPECT_EQ(got[i].at("traceId"), "0af7651916cd43dd8448eb211c80319c");
    EXPECT_EQ(got[i].at("parentSpanId"), "b7ad6b7169203331");
    EXPECT_FALSE(got[i].contains("status"));
    const auto& before = got[i > 0 ? i - 1 : 0];
    EXPECT_EQ(time(got[i], "startTimeUnixNano"),
              time(before, i > 0 ? "endTimeUnixNano" : "startTimeUnixNano"));
  }
  EXPECT_EQ(time(got[0], "endTimeUnixNano") - time(got[0], "startTimeUnixNano"), 300'000'000);
  EXPECT_EQ(time(got[1], "endTimeUnixNano") - time(got[1], "startTimeUnixNano"), 200'000'000);
  EXPECT_GE(time(got[2], "endTimeUnixNano") - time(got[2], "startTimeUnixNano"), 500'000'000);
  EXPECT_EQ(test::attribute(got[1], "gen_ai.usage.input_tokens").at("intValue"), "3");
  EXPECT_EQ(test::attribute(got[2], "gen_ai.usage.output_tokens").at("intValue"), "2");
}

TEST_F(StageSpansTest, TheStageItDiedInIsTheOneThatFailed) {
  auto got = spans("cancelled");
  ASSERT_EQ(got.size(), 1U);
  EXPECT_EQ(got[0].at("name"), "queue");
  EXPECT_EQ(got[0].at("status").at("message"), "cancelled");
  sequence.begun = sequence.arrived + 300ms;
  got = spans("error");
  ASSERT_EQ(got.size(), 2U);
  EXPECT_FALSE(got[0].contains("status"));
  EXPECT_EQ(got[1].at("name"), "prefill");
  EXPECT_EQ(got[1].at("status").at("message"), "error");
}

TEST_F(StageSpansTest, ARequestThatIsNotSampledLeavesNoSpan) {
  request->trace.sampled = false;
  EXPECT_TRUE(spans("").empty());
  EXPECT_FALSE(traces_layers(sequence));
}

TEST_F(StageSpansTest, LayersAreTracedInThePrefillAndAtEvery16thToken) {
  for (std::size_t generated = 0; generated <= 33; ++generated) {
    sequence.tokens.assign(request->prompt.size() + generated, 1);
    EXPECT_EQ(traces_layers(sequence), generated == 0 || generated == 16 || generated == 32)
        << generated;
  }
}

}  // namespace
}  // namespace moesaic
