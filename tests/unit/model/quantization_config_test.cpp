#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "common/model/config.hpp"
#include "tests/support/json.hpp"

namespace moesaic {
namespace {

namespace json = boost::json;
using testing::HasSubstr;

/// The tiny model's config.json with that `quantization_config`.
Result<ModelConfig> parse(std::string_view quantization) {
  auto config = json::parse(test::file_bytes(std::filesystem::path(MOESAIC_SOURCE_DIR) /
                                             "tests/golden/tiny/original/config.json"))
                    .as_object();
  config["quantization_config"] = json::parse(quantization);
  return parse_model_config(json::serialize(config), "config.json");
}

StoredQuantization read(std::string_view quantization) {
  const auto config = parse(quantization);
  EXPECT_TRUE(config) << config.error().what;
  EXPECT_TRUE(config && config->quantization) << quantization;
  return config && config->quantization ? *config->quantization : StoredQuantization{};
}

constexpr const char* kPublished = R"({
  "dense_quant_type": "wint8", "moe_quant_type": "w4w2", "quantization": "wint2",
  "moe_quant_config": {
    "moe_w4_quant_config": {"quant_type": "wint4", "quant_granularity": "per_channel",
                            "quant_start_layer": 0, "quant_end_layer": 4},
    "moe_w2_quant_config": {"quant_type": "wint2", "quant_granularity": "pp_acc",
                            "quant_group_size": 64, "quant_start_layer": 5,
                            "quant_end_layer": 53}}})";

TEST(QuantizationConfigTest, BothSpellingsAndTheDefaultsGiveOneMeaning) {
  constexpr const char* kRead = R"({
    "dense_quant_config": "wint8", "quantization": "wint2",
    "moe_quant_config": {"quant_type": "w4w2", "moe_w4_quant_config": {"quant_end_layer": 4}}})";
  for (const auto* text : {kPublished, kRead}) {
    const auto stored = read(text);
    EXPECT_EQ(stored.dense, StoredFormat::kWint8);
    EXPECT_EQ(stored.of_experts(0), StoredFormat::kWint4);
    EXPECT_EQ(stored.of_experts(4), StoredFormat::kWint4);
    EXPECT_EQ(stored.of_experts(5), StoredFormat::kWint2);
    EXPECT_EQ(stored.of_experts(53), StoredFormat::kWint2);
    EXPECT_EQ(describe(stored), "WINT8, experts WINT4 up to layer 4, then WINT2");
  }
  const auto defaults = read(R"({"quantization": "wint2"})");
  EXPECT_EQ(defaults.dense, StoredFormat::kWint8);
  EXPECT_EQ(defaults.last_early_layer, 6);
  EXPECT_EQ(defaults.of_experts(7), StoredFormat::kWint2);
}

TEST(QuantizationConfigTest, OneTypeForAllExperts) {
  EXPECT_EQ(read(R"({"quantization": "wint8"})").of_experts(0), StoredFormat::kWint8);
  EXPECT_EQ(describe(read(R"({"quantization": "wint4"})")), "WINT8, experts WINT4");
  const auto mixed = read(
      R"({"quantization": "mix_quant", "dense_quant_type": "wint4", "moe_quant_type": "wint2"})");
  EXPECT_EQ(mixed.dense, StoredFormat::kWint4);
  EXPECT_EQ(mixed.of_experts(0), StoredFormat::kWint2);
}

TEST(QuantizationConfigTest, WithoutOneAllIsFloats) {
  const auto config =
      load_model_config(std::filesystem::path(MOESAIC_SOURCE_DIR) / "tests/golden/tiny/original");
  ASSERT_TRUE(config);
  EXPECT_FALSE(config->quantization);
}

TEST(QuantizationConfigTest, OtherTypesAreRefusedByName) {
  const std::tuple<const char*, const char*, Errc> cases[] = {
      {R"({})", "quantization_config.quantization: nothing found, expected wint2, wint4, wint8",
       Errc::kUnsupported},
      {R"({"quantization": "w4a8"})", "quantization: \"w4a8\" found", Errc::kUnsupported},
      {R"({"quantization": 2})", "quantization: 2 found, expected a string", Errc::kCorrupt},
      {R"({"quantization": "wint2", "dense_quant_type": "fp8"})",
       "dense_quant_type: \"fp8\" found, expected wint8, wint4 or wint2", Errc::kUnsupported},
      {R"({"quantization": "wint2", "dense_quant_type": "wint2"})",
       "dense_quant_type: \"wint2\" found, expected wint8 or wint4", Errc::kUnsupported},
      {R"({"quantization": "mix_quant", "dense_quant_type": "wint8"})",
       "moe_quant_type: \"\" found", Errc::kUnsupported},
      {R"({"quantization": "wint2", "dense_quant_type": "wint8", "dense_quant_config": "wint4"})",
       "dense_quant_type: \"wint8\" found, expected \"wint4\", as elsewhere",
       Errc::kInvalidArgument},
      {R"({"quantization": "wint2", "moe_quant_type": "w4w2",
           "moe_quant_config": {"quant_type": "wint4"}})",
       "moe_quant_type: \"w4w2\" found, expected \"wint4\", as elsewhere", Errc::kInvalidArgument},
      {R"({"quantization": "wint2", "moe_quant_config":
           {"moe_w2_quant_config": {"quant_group_size": 128}}})",
       "moe_w2_quant_config.quant_group_size: 128 found, expected 64", Errc::kUnsupported},
      {R"({"quantization": "wint2", "moe_quant_config":
           {"moe_w4_quant_config": {"quant_granularity": "per_group"}}})",
       "moe_w4_quant_config.quant_granularity: \"per_group\" found, expected \"per_channel\"",
       Errc::kUnsupported},
      {R"({"quantization": "wint2", "moe_quant_config":
           {"moe_w4_quant_config": {"quant_end_layer": "six"}}})",
       "quant_end_layer: \"six\" found, expected an integer", Errc::kCorrupt},
      {R"({"quantization": "wint2", "moe_quant_config": 3})",
       "moe_quant_config: 3 found, expected an object", Errc::kCorrupt}};
  for (const auto& [text, part, code] : cases) {
    const auto config = parse(text);
    ASSERT_FALSE(config) << text;
    EXPECT_EQ(config.error().code, code) << text;
    EXPECT_THAT(config.error().what, HasSubstr(part)) << text;
    EXPECT_THAT(config.error().what, HasSubstr("config.json: quantization_config.")) << text;
  }
}

}  // namespace
}  // namespace moesaic
