#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "common/metrics/metrics.hpp"
#include "common/metrics/metrics_page.hpp"

namespace moesaic::metrics {
namespace {

const std::set<std::string> kAreas = {"http",      "request", "engine", "kv",
                                      "prefix",    "moe",     "vision", "wire",
                                      "placement", "control", "trace",  "process"};

TEST(MetricListTest, EveryNameIsUniqueAndOfAKnownArea) {
  std::set<std::string_view> names;
  for (const auto& spec : list()) {
    EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
    ASSERT_TRUE(spec.name.starts_with("moesaic_")) << spec.name;
    const auto rest = std::string(spec.name.substr(8));
    EXPECT_TRUE(kAreas.count(rest.substr(0, rest.find('_')))) << spec.name;
    EXPECT_EQ(spec.name.ends_with("_total"), spec.type == Spec::Type::kCounter) << spec.name;
    EXPECT_TRUE(spec.help.ends_with(".")) << spec.name;
    EXPECT_EQ(spec.help.find_first_of("|\n\\"), std::string_view::npos) << spec.name;
  }
}

TEST(MetricListTest, HistogramsHaveAscendingBucketsAndOthersNone) {
  for (const auto& spec : list()) {
    EXPECT_EQ(spec.buckets.empty(), spec.type != Spec::Type::kHistogram) << spec.name;
    EXPECT_TRUE(std::is_sorted(spec.buckets.begin(), spec.buckets.end(), [](double a, double b) {
      return a <= b;
    })) << spec.name;
  }
}

TEST(MetricListTest, TtftReachesAtLeastTwoMinutes) {
  const auto metrics = list();
  const auto ttft = std::find_if(metrics.begin(), metrics.end(), [](const Spec& spec) {
    return spec.name == "moesaic_request_ttft_seconds";
  });
  ASSERT_NE(ttft, metrics.end());
  EXPECT_GE(ttft->buckets.back(), 120);
}

TEST(MetricListTest, ThePageInOpsIsTheOneOfThisBuild) {
  std::ostringstream page;
  page << std::ifstream(MOESAIC_SOURCE_DIR "/ops/metrics.md").rdbuf();
  EXPECT_EQ(page.str(), metrics_page())
      << "print it again: moesaic doctor --metrics > ops/metrics.md";
}

}  // namespace
}  // namespace moesaic::metrics
