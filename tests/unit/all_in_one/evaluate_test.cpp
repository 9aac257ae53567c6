#include "services/all_in_one/eval/evaluate.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "services/all_in_one/eval/accuracy.hpp"
#include "tests/support/json.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

using testing::HasSubstr;

const std::filesystem::path kDemo =
    std::filesystem::path(MOESAIC_SOURCE_DIR) / "configs/models/ernie-vl-demo";

ModelOptions demo() {
  ModelOptions options;
  options.model = kDemo.string();
  options.threads = 2;
  return options;
}

/// Every `stride`th item of the held-out set: some of every kind.
std::vector<ChatItem> demo_items(std::size_t stride) {
  auto items = read_chat_items(kDemo / "eval/items.jsonl");
  EXPECT_TRUE(items) << items.error().what;
  std::vector<ChatItem> some;
  for (std::size_t i = 0; i < items->size(); i += stride) some.push_back((*items)[i]);
  return some;
}

Result<ItemEncoder> text_encoder() {
  MOESAIC_TRY(const auto config, load_model_config(kDemo));
  return ItemEncoder::load(kDemo, config, Compute::kBf16, nullptr, std::make_shared<ThreadPool>(1));
}

TEST(ItemEncoderTest, PromptAndAnswerAreTheTokensTheModelReadsAndWrites) {
  auto encoder = text_encoder();
  ASSERT_TRUE(encoder) << encoder.error().what;
  const auto cases = boost::json::parse(test::file_bytes(kDemo / "cases.json")).at("cases");
  std::size_t compared = 0;
  for (const auto& c : cases.as_array()) {
    const std::string name(c.at("name").as_string());
    if (name != "who" && name != "sum_thinking" && name != "story") continue;
    ChatItem item;
    item.thinking = c.at("thinking").as_bool();
    const std::string asked(c.at("messages").at(0).at("content").as_string());
    item.messages.push_back({"user", {{ContentPart::Kind::kText, asked}}, std::nullopt});
    const std::string text(c.at("greedy_text").as_string());
    const auto end = text.find("\n</think>\n\n");
    if (item.thinking) item.reasoning = text.substr(1, end - 1);
    item.answer = item.thinking ? text.substr(end + 11) : text;
    const auto encoded = encoder->encode(item, true);
    ASSERT_TRUE(encoded) << encoded.error().what;
    EXPECT_EQ(encoded->prompt, test::numbers<std::int32_t>(c.at("prompt_ids"))) << name;
    EXPECT_EQ(encoded->answer, test::numbers<std::int32_t>(c.at("greedy_ids"))) << name;
    EXPECT_EQ(encoded->thinking, item.thinking);
    ++compared;
  }
  EXPECT_EQ(compared, 3U);
}

TEST(ItemEncoderTest, ErrorsNameTheItem) {
  auto encoder = text_encoder();
  ASSERT_TRUE(encoder) << encoder.error().what;
  ChatItem item;
  item.where = "set.jsonl:9";
  item.thinking = true;
  item.messages.push_back({"user", {{ContentPart::Kind::kText, "Hi"}}, std::nullopt});
  item.answer = "x";
  const auto silent = encoder->encode(item, true);
  ASSERT_FALSE(silent);
  EXPECT_THAT(silent.error().what, HasSubstr("set.jsonl:9: "));
  EXPECT_THAT(silent.error().what, HasSubstr("reasoning"));
  EXPECT_TRUE(encoder->encode(item, false)) << "what is only to be answered needs no reasoning";
  item.messages[0].role = "oracle";
  const auto role = encoder->encode(item, false);
  ASSERT_FALSE(role);
  EXPECT_THAT(role.error().what, HasSubstr("set.jsonl:9: messages[0].role"));
}

TEST(AccuracyTest, CountsAsTheAcceptanceRunDoes) {
  ChatItem item;
  item.answer = "A red ring.";
  EXPECT_TRUE(is_right(item, "\nA red ring. "));
  EXPECT_FALSE(is_right(item, "A red ring"));
  EXPECT_FALSE(is_right(item, ""));
  item.match = ChatItem::Match::kContains;
  item.contains = {"red", "ring"};
  EXPECT_TRUE(is_right(item, "ringed in red"));
  EXPECT_FALSE(is_right(item, "A red circle"));
}

TEST(EvaluateTest, TheDemoModelIsAsGoodAsItsReferenceAndEqualToItself) {
  const auto items = demo_items(6);
  ASSERT_EQ(items.size(), 60U);
  EvalSettings settings;
  settings.kl = true;
  settings.together = 16;
  const auto report = evaluate(demo(), demo(), items, settings);
  ASSERT_TRUE(report) << report.error().what;
  const auto& all = report->all;
  EXPECT_EQ(all.items, 60U);
  EXPECT_EQ(all.judged, 60U);
  // The acceptance run lets bf16 be 2 points behind.
  EXPECT_GE(static_cast<double>(all.right), static_cast<double>(all.reference_right) - 1.2);
  EXPECT_GE(all.same_verdict, 58U);
  EXPECT_EQ(all.divergence.kl, 0);
  EXPECT_EQ(all.divergence.max, 0);
  EXPECT_EQ(all.divergence.same_top, all.divergence.positions);
  EXPECT_EQ(all.divergence.positions, all.perplexity.tokens);
  EXPECT_EQ(all.perplexity.nll, all.reference_perplexity.nll);
  EXPECT_GT(all.perplexity.value(), 1.0);
  EXPECT_LT(all.perplexity.value(), 1.2);
  EvalScore sum;
  for (const auto& task : report->tasks) sum.add(task);
  EXPECT_EQ(sum.right, all.right);
  EXPECT_EQ(sum.perplexity.tokens, all.perplexity.tokens);
}

TEST(EvaluateTest, F32DiffersALittleFromBf16) {
  auto items = demo_items(20);
  auto f32 = demo();
  f32.compute = "f32";
  EvalSettings settings;
  settings.accuracy = false;
  settings.kl = true;
  const auto report = evaluate(f32, demo(), items, settings);
  ASSERT_TRUE(report) << report.error().what;
  EXPECT_GT(report->all.divergence.mean(), 0);
  EXPECT_LT(report->all.divergence.mean(), 1e-3);
  EXPECT_EQ(report->all.right, 0U) << "nothing was generated";
}

TEST(EvaluateTest, ErrorsAreToldBeforeAndDuringTheRun) {
  const test::TempDir dir;
  std::ofstream(dir / "bad.png") << "no picture";
  std::ofstream(dir / "items.jsonl")
      << R"({"messages": [{"role": "user", "content": "Hi"}], "answer": "Hello."})"
      << "\n"
      << R"({"messages": [{"role": "user", "content": [{"type": "image", "image": "bad.png"}]}], )"
      << R"("answer": "x"})"
      << "\n";
  const auto items = read_chat_items(dir / "items.jsonl");
  ASSERT_TRUE(items) << items.error().what;
  const auto broken = evaluate(demo(), {}, *items, {});
  ASSERT_FALSE(broken);
  EXPECT_THAT(broken.error().what, HasSubstr("items.jsonl:2: "));
  EXPECT_THAT(broken.error().what, HasSubstr("bad.png"));
  EvalSettings settings;
  settings.kl = true;
  const auto alone = evaluate(demo(), {}, *items, settings);
  ASSERT_FALSE(alone);
  EXPECT_THAT(alone.error().what, HasSubstr("reference"));
  settings.temp_dir = dir / "none";
  const auto nowhere = evaluate(demo(), demo(), *items, settings);
  ASSERT_FALSE(nowhere);
  EXPECT_EQ(nowhere.error().code, Errc::kIo);
}

}  // namespace
}  // namespace moesaic
