#include "common/metrics/metrics.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#include "tests/support/temp_dir.hpp"

namespace moesaic::metrics {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(MetricsTest, ACounterOfTheSameLabelsIsTheSameSeries) {
  auto first = counter("moesaic_wire_malformed_total", {{"peer", "same"}});
  auto second = counter("moesaic_wire_malformed_total", {{"peer", "same"}});
  auto other = counter("moesaic_wire_malformed_total", {{"peer", "other"}});
  first.add();
  first.add(2.5);
  EXPECT_EQ(second.value(), 3.5);
  EXPECT_EQ(other.value(), 0);
}

TEST(MetricsTest, ExposesTypeHelpLabelsAndValue) {
  counter("moesaic_request_finished_total", {{"reason", "stop"}}).add(7);
  gauge("moesaic_kv_usage_ratio").set(0.25);
  const auto text = expose();
  EXPECT_THAT(text, HasSubstr("# TYPE moesaic_request_finished_total counter\n"));
  EXPECT_THAT(text, HasSubstr("# HELP moesaic_kv_usage_ratio Share of the KV blocks in use"));
  EXPECT_THAT(text, HasSubstr("moesaic_request_finished_total{reason=\"stop\"} 7\n"));
  EXPECT_THAT(text, HasSubstr("\nmoesaic_kv_usage_ratio 0.25\n"));
}

TEST(MetricsTest, HistogramCountsIntoItsBuckets) {
  auto ttft = histogram("moesaic_request_ttft_seconds");
  ttft.observe(0.03);
  ttft.observe(3000);
  const auto text = expose();
  EXPECT_THAT(text, HasSubstr("moesaic_request_ttft_seconds_count 2\n"));
  EXPECT_THAT(text, HasSubstr("moesaic_request_ttft_seconds_sum 3000.03\n"));
  EXPECT_THAT(text, HasSubstr("moesaic_request_ttft_seconds_bucket{le=\"0.02\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("moesaic_request_ttft_seconds_bucket{le=\"0.04\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("moesaic_request_ttft_seconds_bucket{le=\"2560\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("moesaic_request_ttft_seconds_bucket{le=\"+Inf\"} 2\n"));
}

TEST(MetricsTest, ARemovedSeriesIsHiddenAndItsHandleStaysValid) {
  auto alive = gauge("moesaic_control_instance_alive", {{"instance", "shard-9"}});
  gauge("moesaic_control_instance_alive", {{"instance", "shard-8"}}).set(1);
  alive.set(1);
  EXPECT_THAT(expose(), HasSubstr("{instance=\"shard-9\"} 1\n"));
  remove("moesaic_control_instance_alive", {{"instance", "shard-9"}});
  alive.set(0);
  EXPECT_THAT(expose(), Not(HasSubstr("shard-9")));
  EXPECT_THAT(expose(), HasSubstr("{instance=\"shard-8\"} 1\n"));
  gauge("moesaic_control_instance_alive", {{"instance", "shard-9"}});
  EXPECT_THAT(expose(), HasSubstr("{instance=\"shard-9\"} 0\n"));
  remove_all("moesaic_control_instance_alive");
  EXPECT_THAT(expose(), Not(HasSubstr("moesaic_control_instance_alive")));
}

TEST(MetricsTest, LabelValuesAreEscaped) {
  counter("moesaic_wire_malformed_total", {{"peer", "a\"b\\c\nd"}}).add();
  EXPECT_THAT(expose(), HasSubstr(R"(moesaic_wire_malformed_total{peer="a\"b\\c\nd"} 1)"));
}

TEST(MetricsTest, CollectorsRunBeforeEachExposition) {
  auto open = gauge("moesaic_request_open");
  auto calls = std::make_shared<int>(0);
  before_expose([open, calls]() mutable { open.set(++*calls); });
  EXPECT_THAT(expose(), HasSubstr("\nmoesaic_request_open 1\n"));
  EXPECT_THAT(expose(), HasSubstr("\nmoesaic_request_open 2\n"));
}

TEST(MetricsTest, ThreadsCountTogether) {
  constexpr int kThreads = 4;
  constexpr int kEach = 10'000;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([] {
        auto sent = counter("moesaic_wire_messages_total",
                            {{"from", "a"}, {"to", "b"}, {"kind", "control"}, {"crypto", "none"}});
        for (int j = 0; j < kEach; ++j) sent.add();
      });
    }
  }
  EXPECT_EQ(counter("moesaic_wire_messages_total",
                    {{"from", "a"}, {"to", "b"}, {"kind", "control"}, {"crypto", "none"}})
                .value(),
            kThreads * kEach);
}

TEST(MetricsTest, AliasesCarryTheSameNumbersUnderTheOtherNames) {
  gauge("moesaic_engine_requests_waiting").set(5);
  counter("moesaic_request_generated_tokens_total").add(12);
  EXPECT_THAT(expose(), Not(HasSubstr("vllm:")));
  add_vllm_aliases("demo");
  const auto text = expose();
  EXPECT_THAT(text, HasSubstr("# TYPE vllm:num_requests_waiting gauge\n"));
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_waiting{model_name=\"demo\",engine=\"0\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("vllm:generation_tokens_total{model_name=\"demo\",engine=\"0\"} 12"));
  EXPECT_THAT(text, HasSubstr("\nmoesaic_engine_requests_waiting 5\n"));
  add_vllm_aliases("");
  EXPECT_THAT(expose(), Not(HasSubstr("vllm:")));
}

Labels any_labels(const Spec& spec) {
  Labels labels;
  for (const auto name : spec.labels) labels[std::string(name)] = "1";
  return labels;
}

TEST(MetricsTest, PromtoolFindsNothingToSayAboutAnyMetric) {
  if (std::system("command -v promtool > /dev/null") != 0) GTEST_SKIP() << "no promtool here";
  for (const auto& spec : list()) {
    switch (spec.type) {
      case Spec::Type::kCounter:
        counter(spec.name, any_labels(spec)).add();
        break;
      case Spec::Type::kGauge:
        gauge(spec.name, any_labels(spec)).set(1);
        break;
      case Spec::Type::kHistogram:
        histogram(spec.name, any_labels(spec)).observe(1);
        break;
    }
  }
  const test::TempDir folder;
  const auto page = folder / "metrics.txt";
  const auto said = folder / "said.txt";
  const auto text = expose();
  for (const auto& spec : list()) EXPECT_THAT(text, HasSubstr("# TYPE " + std::string(spec.name)));
  std::ofstream(page) << text;
  const auto status = std::system(
      ("promtool check metrics < " + page.string() + " > " + said.string() + " 2>&1").c_str());
  std::ostringstream words;
  words << std::ifstream(said).rdbuf();
  EXPECT_EQ(status, 0) << words.str();
}

}  // namespace
}  // namespace moesaic::metrics
