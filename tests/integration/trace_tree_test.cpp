#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "common/trace/exporter.hpp"
#include "common/trace/traceparent.hpp"
#include "tests/support/expert_cluster.hpp"
#include "tests/support/running_engine.hpp"
#include "tests/support/trace_collector.hpp"

// One request's spans through engine, router and shards.
namespace moesaic {
namespace {

using Object = boost::json::object;

std::string text(const Object& span, const char* member) {
  return span.contains(member) ? std::string(span.at(member).as_string()) : std::string();
}
std::int64_t time(const Object& span, const char* member) { return std::stoll(text(span, member)); }

class TraceTreeTest : public testing::Test {
 protected:
  TraceTreeTest() {
    TraceConfig config;
    config.endpoint = collector.endpoint();
    config.capacity = 100'000;
    exporter = TraceExporter::start(config).value();
  }
  /// Generates 20 tokens of a traced request between two that are not: the first waits for the
  /// connections, so that nothing of the traced one is asked twice.
  void run(std::unique_ptr<ExpertBackend> experts) {
    EngineSettings settings;
    settings.tracer = exporter->tracer();
    test::RunningEngine engine(model, settings, std::move(experts));
    engine.submit(1, test::prompt_of(30, 3), 20);
    engine.wait(1);
    GenerateRequest request;
    request.id = 2;
    request.prompt = test::prompt_of(30, 1);
    request.max_tokens = 20;
    request.trace = *parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    engine.submit(request);
    engine.wait(2);
    engine.submit(3, test::prompt_of(30, 2), 20);
    engine.wait(3);
  }
  void collect() {
    exporter.reset();
    for (auto& span : collector.all_spans()) spans[text(span, "spanId")] = std::move(span);
    for (const auto& [id, span] : spans) {
      EXPECT_EQ(span.at("traceId"), "0af7651916cd43dd8448eb211c80319c");
      ++names[text(span, "name")];
    }
  }
  const Object& parent(const Object& span) const { return spans.at(text(span, "parentSpanId")); }

  const LoadedModel model = test::load_demo("bf16", 1);
  test::TraceCollector collector;
  std::unique_ptr<TraceExporter> exporter;
  std::map<std::string, Object> spans;
  std::map<std::string, std::size_t> names;
};

TEST_F(TraceTreeTest, LayersLeadThroughTheRouterToTheShards) {
  {
    test::ExpertCluster shards(model, shard_placement(model.config, model.compute, 2),
                               exporter->tracer());
    FanOutOptions patient;
    patient.connect_time = std::chrono::seconds(30);  // never without the router
    run(shards.central({"router-0"}, patient));
  }
  collect();
  const auto moe_layers = static_cast<std::size_t>(
      std::count(model.config.layer_is_moe.begin(), model.config.layer_is_moe.end(), true));
  EXPECT_EQ(names["queue"], 1U);
  EXPECT_EQ(names["prefill"], 1U);
  EXPECT_EQ(names["decode"], 1U);
  EXPECT_EQ(names["moe layer"], 2 * moe_layers) << "the prefill and the step after 16 tokens";
  EXPECT_EQ(names["dispatch"], names["moe layer"]);
  EXPECT_GE(names["experts"], names["dispatch"]);
  EXPECT_LE(names["experts"], 2 * names["dispatch"]);
  for (const auto& [id, span] : spans) {
    const auto name = text(span, "name");
    if (name != "dispatch" && name != "experts") {
      EXPECT_EQ(text(span, "parentSpanId"), "b7ad6b7169203331") << name;
      continue;
    }
    const auto& above = parent(span);
    EXPECT_EQ(text(above, "name"), name == "experts" ? "dispatch" : "moe layer");
    EXPECT_EQ(test::attribute(above, "moesaic.moe.layer"),
              test::attribute(span, "moesaic.moe.layer"));
    EXPECT_GE(time(span, "startTimeUnixNano"), time(above, "startTimeUnixNano"));
  }
}

TEST_F(TraceTreeTest, WithoutARouterTheShardsFollowTheLayers) {
  {
    test::ExpertCluster shards(model, shard_placement(model.config, model.compute, 2),
                               exporter->tracer());
    run(shards.direct());
  }
  collect();
  EXPECT_EQ(names.count("dispatch"), 0U);
  EXPECT_GE(names["experts"], names["moe layer"]);
  for (const auto& [id, span] : spans) {
    if (text(span, "name") != "experts") continue;
    EXPECT_EQ(text(parent(span), "name"), "moe layer");
  }
}

}  // namespace
}  // namespace moesaic
