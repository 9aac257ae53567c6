#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/kernels/isa.hpp"
#include "common/tensor/safetensors.hpp"
#include "tests/support/json.hpp"
#include "tests/support/published_checkpoint.hpp"
#include "tests/support/run_program.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

const fs::path kDemo = fs::path(MOESAIC_SOURCE_DIR) / "configs/models/ernie-vl-demo";

/// The demo model as a published 2-bit checkpoint: attention, dense and shared linears WINT8,
/// experts WINT4 up to layer 2, WINT2 from there.
class PublishedModelTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new test::TempDir;
    test::PublishedSpec spec;
    spec.last_w4_layer = 2;
    spec.signed_bytes = true;
    const auto config = load_model_config(kDemo);
    ASSERT_TRUE(config);
    const auto source = open_checkpoint(kDemo, *config);
    ASSERT_TRUE(source);
    fs::create_directory(checkpoint());
    for (const auto& entry : fs::directory_iterator(kDemo))
      if (entry.is_regular_file() && entry.path().extension() != ".safetensors")
        fs::copy_file(entry.path(), checkpoint() / entry.path().filename());
    ASSERT_TRUE(write_safetensors(checkpoint() / "model.safetensors",
                                  test::published_tensors(*config, **source, spec)));
    fs::remove(checkpoint() / "config.json");
    std::ofstream(checkpoint() / "config.json")
        << test::published_config(test::file_bytes(kDemo / "config.json"), spec);
  }
  static void TearDownTestSuite() {
    delete folder_;
    folder_ = nullptr;
  }
  static fs::path checkpoint() { return *folder_ / "published"; }

  static std::string run(std::vector<std::string> words, const std::string& level = "") {
    const auto got = test::run_program("moesaic", words, {{"MOESAIC_ISA", level}});
    EXPECT_EQ(got.status, 0) << words.front() << ": " << got.err;
    return got.out;
  }
  static inline test::TempDir* folder_ = nullptr;
};

const std::vector<std::vector<std::string>> kPrompts = {
    {"--prompt", "Who are you?", "--max-tokens", "24"},
    {"--image", (kDemo / "eval/images/0001.png").string(), "--prompt", "What do you see?",
     "--max-tokens", "24"}};

std::vector<std::string> generate(const fs::path& model, const std::vector<std::string>& prompt,
                                  const std::vector<std::string>& more = {}) {
  std::vector<std::string> words{"generate", "--model", model.string()};
  words.insert(words.end(), prompt.begin(), prompt.end());
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST_F(PublishedModelTest, AnswersAsThePackMadeOfItDoes) {
  const auto pack = *folder_ / "pack";
  run({"pack", "--model", checkpoint().string(), "--output", pack.string()});
  Tensor ids(DType::kI32, {1, 40});
  for (std::size_t i = 0; i < 40; ++i)
    ids.as<std::int32_t>()[i] = static_cast<std::int32_t>(100 + 7 * i);
  std::map<std::string, Tensor> input;
  input.emplace("input_ids", std::move(ids));
  const auto case_file = (*folder_ / "case.safetensors").string();
  ASSERT_TRUE(write_safetensors(case_file, input));
  std::vector<std::string> intermediates, scores;
  for (const auto& model : {checkpoint(), pack}) {
    const auto out = (*folder_ / "out.safetensors").string();
    run({"forward", "--model", model.string(), "--input", case_file, "--output", out, "--layers"});
    intermediates.push_back(test::file_bytes(out));
    scores.push_back(run({"eval", "--model", model.string(), "--data",
                          (kDemo / "eval/items.jsonl").string(), "--limit", "4"}));
  }
  EXPECT_EQ(intermediates[0], intermediates[1]);
  EXPECT_EQ(scores[0], scores[1]);
  for (const auto& prompt : kPrompts) {
    const auto want = run(generate(checkpoint(), prompt));
    EXPECT_FALSE(want.empty());
    EXPECT_EQ(run(generate(pack, prompt)), want);
    EXPECT_EQ(run(generate(checkpoint(), prompt, {"--experts", "routed:3"})), want);
    for (const auto isa : {"scalar", "avx2"}) EXPECT_EQ(run(generate(pack, prompt), isa), want);
  }
  EXPECT_THAT(run(generate(checkpoint(), kPrompts[0])), HasSubstr("demo model"));
}

TEST_F(PublishedModelTest, CanBeInspectedAndWidened) {
  EXPECT_THAT(run({"inspect", checkpoint().string()}),
              HasSubstr("WINT8, experts WINT4 up to layer 2, then WINT2"));
  EXPECT_THAT(run(generate(checkpoint(), kPrompts[0], {"--compute", "bf16"})),
              HasSubstr("demo model"));
}

}  // namespace
}  // namespace moesaic
