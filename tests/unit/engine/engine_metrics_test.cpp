#include "common/engine/engine_metrics.hpp"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

namespace moesaic {
namespace {

using namespace std::chrono_literals;

double exposed(const std::string& series) {
  std::istringstream text(metrics::expose());
  for (std::string line; std::getline(text, line);)
    if (line.starts_with(series + " ")) return std::stod(line.substr(series.size()));
  return -1;
}

TEST(EngineMetricsTest, TellsRoomAndLoad) {
  SchedulerLimits limits;
  limits.max_waiting = 17;
  EngineMetrics metrics(limits, 40);
  EXPECT_EQ(exposed("moesaic_engine_requests_waiting_limit"), 17);
  EXPECT_EQ(exposed("moesaic_kv_usage_ratio"), 0);
  metrics.publish(3, 5, 30);
  EXPECT_EQ(exposed("moesaic_engine_requests_running"), 3);
  EXPECT_EQ(exposed("moesaic_engine_requests_waiting"), 5);
  EXPECT_EQ(exposed("moesaic_kv_usage_ratio"), 0.25);
  EXPECT_EQ(exposed("moesaic_kv_blocks{state=\"free\"}"), 30);
  EXPECT_EQ(exposed("moesaic_kv_blocks{state=\"active\"}"), 10);
  metrics.waiting(6);
  EXPECT_EQ(exposed("moesaic_engine_requests_waiting"), 6);
}

TEST(EngineMetricsTest, TimesTheStagesOfARequestOnce) {
  EngineMetrics metrics({}, 1);
  const auto sum = [](const std::string& stage) {
    return exposed("moesaic_request_" + stage + "_seconds_sum");
  };
  const auto count = [](const std::string& stage) {
    return exposed("moesaic_request_" + stage + "_seconds_count");
  };
  const double queue = sum("queue");
  const double prefill = sum("prefill");
  const double decode = sum("decode");
  const double queued = count("queue");
  const double prefilled = count("prefill");
  const double decoded = count("decode");

  auto request = std::make_shared<GenerateRequest>();
  request->prompt = {1, 2, 3};
  request->max_tokens = 2;
  Sequence sequence;
  sequence.request = request;
  sequence.tokens = request->prompt;
  const auto start = sequence.arrived;
  metrics.planned({{&sequence, 0, 2}}, start + 100ms);
  metrics.planned({{&sequence, 2, 1}}, start + 200ms);
  sequence.tokens.push_back(4);
  metrics.drawn(sequence, start + 300ms);
  EXPECT_EQ(count("decode"), decoded) << "one token is still to come";
  sequence.tokens.push_back(5);
  metrics.drawn(sequence, start + 350ms);

  EXPECT_NEAR(sum("queue") - queue, 0.1, 1e-9);
  EXPECT_NEAR(sum("prefill") - prefill, 0.2, 1e-9);
  EXPECT_NEAR(sum("decode") - decode, 0.05, 1e-9);
  EXPECT_EQ(count("queue") - queued, 1);
  EXPECT_EQ(count("prefill") - prefilled, 1);
  EXPECT_EQ(count("decode") - decoded, 1);
}

}  // namespace
}  // namespace moesaic
