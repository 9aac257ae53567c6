#include "services/all_in_one/machine_plan.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <string>

#include "common/base/read_file.hpp"
#include "common/engine/make_engine.hpp"
#include "common/model/pack.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const fs::path kModels = std::string(MOESAIC_SOURCE_DIR) + "/configs/models";
const fs::path kPublished = kModels / "ernie-4.5-vl-28b-a3b.json";
const fs::path kDemo = kModels / "ernie-vl-demo";
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

MachinePlan plan_of(const MachinePlanOptions& options) {
  auto plan = plan_machine(options);
  EXPECT_TRUE(plan) << plan.error().what;
  return plan ? *plan : MachinePlan{};
}

TEST(MachinePlanTest, ThePublishedModelInFourBitsFitsInto24GiBWithItsWholeContext) {
  const auto plan = plan_of({.model = kPublished, .format = "w4", .memory_bytes = 23 * kGiB});
  // Sizes of the format's definition: 4.25 bits and a scale a row; the vision tower in bf16.
  EXPECT_GT(plan.weights.bytes(), 15.3e9);
  EXPECT_LT(plan.weights.bytes(), 16.9e9);
  EXPECT_NEAR(static_cast<double>(plan.weights.token_bytes()), 1.80e9, 0.01e9);
  EXPECT_EQ(plan.compute, Compute::kInt);
  EXPECT_EQ(plan.kv_type, Compute::kInt);
  EXPECT_EQ(plan.memory.context, 131072U);
  EXPECT_NEAR(static_cast<double>(plan.memory.kv_bytes(131072)), 3.9e9, 0.05e9);
  EXPECT_TRUE(plan.fits()) << to_text(plan, {});
  EXPECT_EQ(plan.longest_context(), 131072U);
}

TEST(MachinePlanTest, WhatCannotFitIsToldInNumbers) {
  const auto half = plan_of({.model = kPublished, .memory_bytes = 20 * kGiB});
  EXPECT_FALSE(half.fits());
  EXPECT_GT(half.longest_context(), 0U);
  EXPECT_LT(half.longest_context(), 131072U);
  EXPECT_THAT(to_text(half, {}), HasSubstr("does not fit: "));
  EXPECT_THAT(to_text(half, {}), HasSubstr("one sequence could have " +
                                           std::to_string(half.longest_context()) + " tokens"));
  // The longest context is just what fits.
  const auto longest = half.longest_context();
  EXPECT_TRUE(plan_of({.model = kPublished, .context = longest, .memory_bytes = 20 * kGiB}).fits());
  EXPECT_FALSE(
      plan_of({.model = kPublished, .context = longest + 64, .memory_bytes = 20 * kGiB}).fits());
  const auto none = plan_of({.model = kPublished, .format = "bf16", .memory_bytes = 23 * kGiB});
  EXPECT_FALSE(none.fits());
  EXPECT_EQ(none.longest_context(), 0U);
  EXPECT_THAT(to_text(none, {}), HasSubstr("weights, buffers and reserve alone need"));
}

TEST(MachinePlanTest, FormatsAndCachesHaveTheirSizes) {
  const auto of = [](const char* format) {
    return static_cast<double>(
        plan_of({.model = kPublished, .format = format}).weights.token_bytes());
  };
  EXPECT_NEAR(of("w8") / of("w4"), 8.0 / 4.25, 0.02);
  EXPECT_NEAR(of("bf16") / of("w4"), 16.0 / 4.25, 0.05);
  EXPECT_LT(of("ccq2"), 0.55 * of("w4"));
  const auto kv = [](const char* type) {
    return static_cast<double>(plan_of({.model = kPublished, .kv = type}).memory.kv_bytes(131072));
  };
  EXPECT_NEAR(kv("bf16"), 7.5e9, 0.05e9);
  EXPECT_NEAR(kv("f32"), 15.0e9, 0.1e9);
}

TEST(MachinePlanTest, MixedFormatsComeFromAPolicyFile) {
  const test::TempDir temp;
  const auto policy = temp.path() / "p.yaml";
  std::ofstream(policy) << "default: w4\nattention: w8\nembedding: w8\ntext_experts: [{format: "
                           "ccq2, layers: 1-20}, {format: w4, layers: 21-27}]\n";
  const auto plan = plan_of({.model = kPublished, .policy = policy});
  std::map<std::string, std::string> formats;
  for (const auto& part : plan.weights.parts) formats[part.name] = part.formats;
  EXPECT_EQ(formats["attention"], "w8");
  EXPECT_EQ(formats["text_experts"], "ccq2, w4");
  EXPECT_EQ(formats["vision"], "bf16");
  EXPECT_EQ(formats["values"], "f32");
  // Attention and head in eight bits: 2.13 GB a token of the four-bit experts, less here.
  EXPECT_LT(plan.weights.token_bytes(), 2.0e9);
}

TEST(MachinePlanTest, APackIsPlannedByteForByteAsItIsLoaded) {
  const test::TempDir temp;
  const auto config = *load_model_config(kDemo);
  ThreadPool pool(2);
  for (const auto format : {WeightFormat::kBf16, WeightFormat::kW8r, WeightFormat::kW4r}) {
    const auto dir = temp.path() / std::string(format_name(format));
    PackOptions options;
    options.policy = PackPolicy::uniform(format);
    options.method = QuantMethod::kAbsmax;
    options.source = "a test";
    options.copy_from = kDemo;
    ASSERT_TRUE(write_pack(config, *read_file(kDemo / "config.json", 1 << 20),
                           **open_checkpoint(kDemo, config), options, dir, pool, {}));
    std::uint64_t stored = 0;
    std::uint64_t decoder = 0;
    for (const auto& entry : fs::directory_iterator(dir)) {
      if (entry.path().extension() != ".pack") continue;
      const auto file = *PackFile::open(entry.path());
      std::uint64_t bytes = 0;
      for (const auto& tensor : file->entries()) bytes += tensor.bytes;
      stored += bytes;
      if (entry.path().filename() == "decoder.pack" || entry.path().filename() == "routers.pack")
        decoder += bytes;
    }
    const auto plan = plan_of({.model = dir});
    EXPECT_EQ(plan.source, "pack");
    EXPECT_EQ(plan.weights.bytes(), stored) << format_name(format);
    // The norms and biases of the vision tower are among the values, which decoders count.
    EXPECT_GE(plan.weights.decoder_bytes(), decoder) << format_name(format);
    EXPECT_LT(plan.weights.decoder_bytes() - decoder, 100'000U);
    EXPECT_EQ(
        plan.weights.bytes(),
        plan_of({.model = kDemo, .format = std::string(format_name(format))}).weights.bytes());

    // The engine's cache is the plan's.
    ModelOptions model;
    model.model = dir;
    const auto opened = open_model(model);
    ASSERT_TRUE(opened) << opened.error().what;
    EngineSettings settings;
    settings.max_context = 1000;
    settings.limits.max_running = 3;
    const auto memory = plan_memory(*opened, settings, opened->weights().bytes());
    const auto loaded = load_model(*opened, model);
    ASSERT_TRUE(loaded) << loaded.error().what;
    const auto cache = make_kv_cache(*loaded, settings);
    ASSERT_TRUE(cache) << cache.error().what;
    EXPECT_EQ((*cache)->total_blocks(), memory.kv_blocks);
    EXPECT_EQ(memory.kv_blocks, 3 * kv_blocks_for(1000));
    EXPECT_EQ(memory.kv_block_bytes, plan.memory.kv_block_bytes);
  }
}

TEST(MachinePlanTest, EstimatesFollowFromBytesAndSpeeds) {
  const auto plan = plan_of({.model = kPublished, .memory_bytes = 23 * kGiB});
  const MachineSpeed speed{.read_gbs = 20, .peak_gops = 2000, .disk_gbs = 2, .isa = Isa::kAvx512};
  EXPECT_NEAR(decode_rate(plan, speed, 128), 0.9 * 20 / 1.80, 0.1);
  EXPECT_NEAR(decode_rate(plan, speed, 131072), 0.85 * 20 / (1.80 + 3.9), 0.1);
  EXPECT_NEAR(load_seconds(plan, speed), static_cast<double>(plan.weights.bytes()) / 2e9, 0.01);
  // About 2 x 2.8e9 multiply-adds a token, and attention over those before it.
  EXPECT_NEAR(prefill_rate(plan, speed, 512), 0.6 * 2000e9 / 5.5e9, 40);
  EXPECT_LT(prefill_rate(plan, speed, 8192), prefill_rate(plan, speed, 512));
  const auto text = to_text(plan, speed);
  EXPECT_THAT(text, HasSubstr("estimates, from 20.0 GB/s of memory, 2000 Gop/s at level avx512"));
  EXPECT_THAT(to_json(plan, speed), HasSubstr("\"fits\":true"));
}

TEST(MachinePlanTest, BadQuestionsAreRefused) {
  const auto error = [](const MachinePlanOptions& options) {
    const auto plan = plan_machine(options);
    return plan ? std::string() : plan.error().what;
  };
  EXPECT_THAT(error({.model = kPublished, .context = 131073}),
              HasSubstr("131073 tokens; the model has 131072"));
  EXPECT_THAT(error({.model = kPublished, .format = "w3"}), HasSubstr("format \"w3\""));
  EXPECT_THAT(error({.model = kModels / "none.json"}), HasSubstr("none.json"));
}

}  // namespace
}  // namespace moesaic
