#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/base/read_file.hpp"
#include "common/kernels/isa.hpp"
#include "tests/support/run_program.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

using testing::HasSubstr;

const std::string kDemo = std::string(MOESAIC_SOURCE_DIR) + "/configs/models/ernie-vl-demo";

/// The demo model as a pack, made once.
class QuantizedModelTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    std::ofstream(temp_ / "mixed.yaml")
        << "default: w8\nattention: w4\nvision_experts: bf16\nvision: w8\n"
           "shared: {format: bf16, layers: 2-3}\n"
           "text_experts: [{format: ccq2, layers: 1-2}, {format: "
           "ccq2.5, layers: 3}, {format: ccq2.75, layers: 4-5}]\n";
    std::vector<std::string> words{"quantize", "--output", pack()};
    if (GetParam() == "mixed") {
      words.insert(words.end(), {"--policy", (temp_ / "mixed.yaml").string()});
    } else {
      words.insert(words.end(), {"--format", GetParam()});
    }
    const auto made = test::run_program("moesaic", words);
    ASSERT_EQ(made.status, 0) << made.err;
  }
  std::string pack() const { return (temp_ / "pack").string(); }
  std::string answer(const std::string& level, std::vector<std::string> more) {
    std::vector<std::string> words{"generate", "--model", pack()};
    words.insert(words.end(), more.begin(), more.end());
    const auto got = test::run_program("moesaic", words, {{"MOESAIC_ISA", level}});
    EXPECT_EQ(got.status, 0) << got.err;
    return got.out;
  }
  test::TempDir temp_;
};

TEST_P(QuantizedModelTest, AnswersTheSameAtEveryLevelThreadCountAndThroughShards) {
  const std::vector<std::vector<std::string>> prompts = {
      {"--prompt", "Who are you?", "--max-tokens", "24"},
      {"--image", kDemo + "/eval/images/0001.png", "--prompt", "What do you see?", "--max-tokens",
       "24"}};
  for (const auto& prompt : prompts) {
    const auto want = answer("scalar", prompt);
    for (const auto isa : available_isas()) {
      // That level has bf16 sums of its own, in the vision tower.
      if (isa == Isa::kAvx512Bf16 || isa == Isa::kScalar) continue;
      EXPECT_EQ(answer(std::string(isa_name(isa)), prompt), want) << isa_name(isa);
    }
    for (const std::vector<std::string>& how : {std::vector<std::string>{"--threads", "1"},
                                                {"--threads", "3"},
                                                {"--experts", "routed:3"},
                                                {"--prefill-chunk", "5"}}) {
      auto words = prompt;
      words.insert(words.end(), how.begin(), how.end());
      EXPECT_EQ(answer("", words), want) << how.front() << " " << how.back();
    }
  }
  EXPECT_THAT(answer("scalar", prompts[0]), HasSubstr("I am a small demo model"));
}

INSTANTIATE_TEST_SUITE_P(Formats, QuantizedModelTest, testing::Values("w8", "w4", "mixed"));

TEST(SynthCommandTest, APolicyMakesAPackThatAnswers) {
  test::TempDir temp;
  const auto policy = (temp / "p.yaml").string(), pack = (temp / "pack").string();
  std::ofstream(policy) << "default: w4\nvision: w8\n";
  const std::vector<std::string> synth{
      "synth", "--model-config", kDemo + "/config.json", "--policy", policy, "--output", pack};
  auto both = synth;
  both.insert(both.end(), {"--format", "w8"});
  const auto refused = test::run_program("moesaic", both);
  EXPECT_NE(refused.status, 0);
  EXPECT_THAT(refused.err, HasSubstr("--format excludes --policy"));
  const auto made = test::run_program("moesaic", synth);
  ASSERT_EQ(made.status, 0) << made.err;
  EXPECT_THAT(*read_file(pack + "/manifest.json", 1 << 20), HasSubstr("\"w8\""));
  const auto got = test::run_program(
      "moesaic", {"generate", "--model", pack, "--image", kDemo + "/eval/images/0001.png",
                  "--prompt", "What do you see?", "--max-tokens", "4"});
  EXPECT_EQ(got.status, 0) << got.err;
}

TEST(SynthCommandTest, ACheckpointWithATokenizerCanBeCalibratedAndAnswers) {
  test::TempDir temp;
  const auto config = (temp / "config.json").string(), chats = (temp / "chats.jsonl").string();
  const auto model = (temp / "model").string(), pack = (temp / "pack").string();
  auto text = *read_file(kDemo + "/config.json", 1 << 20);
  const std::string key = "\"im_patch_id\": ";
  text.replace(text.find(key), key.size(), key + "1");  // another model's id
  std::ofstream(config) << text;
  std::ofstream(chats) << R"({"messages": [{"role": "user", "content": "Hi"}], "answer": "Yes."})";
  const auto made = test::run_program(
      "moesaic", {"synth", "--model-config", config, "--tokenizer", "--output", model});
  ASSERT_EQ(made.status, 0) << made.err;
  const auto quantized =
      test::run_program("moesaic", {"quantize", "--model", model, "--method", "calibrated",
                                    "--calibration", chats, "--output", pack});
  ASSERT_EQ(quantized.status, 0) << quantized.err;
  EXPECT_THAT(quantized.err, HasSubstr("1 chats, "));
  const auto got = test::run_program(
      "moesaic", {"generate", "--model", pack, "--image", kDemo + "/eval/images/0001.png",
                  "--prompt", "What do you see?", "--max-tokens", "4"});
  EXPECT_EQ(got.status, 0) << got.err;
}

TEST(QuantizeCommandTest, BadInputEndsWithAClearError) {
  test::TempDir temp;
  std::ofstream(temp / "p.yaml") << "default: w4\natention: w8\n";
  const auto policy = test::run_program(
      "moesaic",
      {"quantize", "--policy", (temp / "p.yaml").string(), "--output", (temp / "o").string()});
  EXPECT_EQ(policy.status, 3);
  EXPECT_THAT(policy.err, HasSubstr("no component \"atention\""));
  const auto pack = (temp / "pack").string();
  ASSERT_EQ(
      test::run_program("moesaic", {"quantize", "--method", "absmax", "--output", pack}).status, 0);
  const auto again = test::run_program("moesaic", {"quantize", "--output", pack});
  EXPECT_EQ(again.status, 3);
  EXPECT_THAT(again.err, HasSubstr("finished pack already"));
  const auto of_pack = test::run_program(
      "moesaic", {"quantize", "--model", pack, "--output", (temp / "q").string()});
  EXPECT_EQ(of_pack.status, 3);
  EXPECT_THAT(of_pack.err, HasSubstr("is a pack already"));
  const auto mode = test::run_program(
      "moesaic", {"generate", "--model", pack, "--compute", "bf16", "--prompt", "x"});
  EXPECT_EQ(mode.status, 3);
  EXPECT_THAT(mode.err, HasSubstr("quantised weights are computed in int"));
  const auto checkpoint =
      test::run_program("moesaic", {"generate", "--compute", "int", "--prompt", "x"});
  EXPECT_EQ(checkpoint.status, 3);
  EXPECT_THAT(checkpoint.err, HasSubstr("int needs quantised weights"));
}

}  // namespace
}  // namespace moesaic
