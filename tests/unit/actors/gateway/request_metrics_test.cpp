#include "actors/gateway/request_metrics.hpp"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "common/metrics/metrics.hpp"

namespace moesaic {
namespace {

using namespace std::chrono_literals;

/// The number behind `series` in the exposition; 0 if it is not there.
double exposed(const std::string& series) {
  std::istringstream text(metrics::expose());
  for (std::string line; std::getline(text, line);)
    if (line.starts_with(series + " ")) return std::stod(line.substr(series.size()));
  return 0;
}

/// What `series` grew by since the test began: all tests of a program share its metrics.
class Growth {
 public:
  explicit Growth(std::string series) : series_(std::move(series)), before_(exposed(series_)) {}
  double value() const { return exposed(series_) - before_; }

 private:
  std::string series_;
  double before_;
};

const RequestMetrics::Clock::time_point kStart{1h};

TEST(RequestMetricsTest, TimesAnAnswerFromItsArrival) {
  const Growth ttft("moesaic_request_ttft_seconds_sum");
  const Growth gaps("moesaic_request_inter_token_seconds_count");
  const Growth gap_time("moesaic_request_inter_token_seconds_sum");
  const Growth e2e("moesaic_request_e2e_seconds_sum");
  const Growth prompt("moesaic_request_prompt_tokens_total");
  const Growth generated("moesaic_request_generated_tokens_total");
  const Growth stops("moesaic_request_finished_total{reason=\"stop\"}");

  RequestMetrics request(kStart);
  request.admitted(7);
  request.tokens(1, kStart + 250ms);
  request.tokens(1, kStart + 350ms);
  request.tokens(2, kStart + 750ms);
  request.finished("stop", kStart + 800ms);

  EXPECT_NEAR(ttft.value(), 0.25, 1e-9);
  EXPECT_EQ(gaps.value(), 3);
  EXPECT_NEAR(gap_time.value(), 0.5, 1e-9);
  EXPECT_NEAR(e2e.value(), 0.8, 1e-9);
  EXPECT_EQ(prompt.value(), 7);
  EXPECT_EQ(generated.value(), 4);
  EXPECT_EQ(stops.value(), 1);
}

TEST(RequestMetricsTest, AnErrorIsARejectionUntilTheFirstToken) {
  const Growth rejected("moesaic_request_rejected_total{reason=\"queue_timeout\"}");
  const Growth errors("moesaic_request_finished_total{reason=\"error\"}");
  RequestMetrics early(kStart);
  early.admitted(1);
  early.failed("queue_timeout", kStart + 1s);
  EXPECT_EQ(rejected.value(), 1);
  EXPECT_EQ(errors.value(), 0);
  RequestMetrics late(kStart);
  late.admitted(1);
  late.tokens(1, kStart + 1s);
  late.failed("queue_timeout", kStart + 2s);
  EXPECT_EQ(rejected.value(), 1);
  EXPECT_EQ(errors.value(), 1);
}

TEST(RequestMetricsTest, ALeavingClientCountsAtItsStage) {
  const Growth prepare("moesaic_request_cancelled_total{stage=\"prepare\"}");
  const Growth prefill("moesaic_request_cancelled_total{stage=\"prefill\"}");
  const Growth decode("moesaic_request_cancelled_total{stage=\"decode\"}");
  RequestMetrics first(kStart);
  first.cancelled(kStart + 1ms);
  RequestMetrics second(kStart);
  second.admitted(1);
  second.cancelled(kStart + 1ms);
  RequestMetrics third(kStart);
  third.admitted(1);
  third.tokens(1, kStart + 1ms);
  third.cancelled(kStart + 2ms);
  EXPECT_EQ(prepare.value(), 1);
  EXPECT_EQ(prefill.value(), 1);
  EXPECT_EQ(decode.value(), 1);
}

TEST(RequestMetricsTest, ReleaseIsTimedOnceAndOnlyAfterACancellation) {
  const Growth count("moesaic_request_cancel_release_seconds_count");
  const Growth sum("moesaic_request_cancel_release_seconds_sum");
  RequestMetrics request(kStart);
  request.admitted(1);
  request.released(kStart);
  EXPECT_EQ(count.value(), 0);
  request.cancelled(kStart + 10ms);
  request.released(kStart + 14ms);
  request.released(kStart + 99ms);
  EXPECT_EQ(count.value(), 1);
  EXPECT_NEAR(sum.value(), 0.004, 1e-9);
}

}  // namespace
}  // namespace moesaic
