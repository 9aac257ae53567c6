#include "services/all_in_one/eval/chat_items.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

using testing::HasSubstr;

const std::filesystem::path kDemoEval =
    std::filesystem::path(MOESAIC_SOURCE_DIR) / "configs/models/ernie-vl-demo/eval";

/// A picture that is there, by its absolute path.
const std::string kPicture = (kDemoEval / "images/0001.png").string();

class ChatItemsTest : public testing::Test {
 protected:
  Result<std::vector<ChatItem>> read(const std::string& text) {
    std::ofstream(dir_ / "items.jsonl") << text;
    return read_chat_items(dir_ / "items.jsonl");
  }

  test::TempDir dir_;
};

TEST_F(ChatItemsTest, ReadsTheDemoModelsSet) {
  const auto items = read_chat_items(kDemoEval / "items.jsonl");
  ASSERT_TRUE(items) << items.error().what;
  ASSERT_EQ(items->size(), 359U);
  const auto& first = items->front();
  EXPECT_EQ(first.id, "s0000");
  EXPECT_EQ(first.task, "scene_describe");
  EXPECT_EQ(first.answer, "An orange star in the center.");
  EXPECT_EQ(first.reference_correct, true);
  ASSERT_EQ(first.visuals.size(), 1U);
  EXPECT_EQ(first.visuals[0].frames[0].file, kDemoEval / "images/0001.png");
  ASSERT_EQ(first.messages.size(), 1U);
  ASSERT_EQ(first.messages[0].parts.size(), 2U);
  EXPECT_EQ(first.messages[0].parts[0].kind, ContentPart::Kind::kImage);
  EXPECT_EQ(first.messages[0].parts[1].text, "What do you see?");
  std::size_t thinking = 0, videos = 0, contains = 0;
  for (const auto& item : *items) {
    thinking += item.thinking && item.reasoning ? 1 : 0;
    contains += item.match == ChatItem::Match::kContains ? 1 : 0;
    for (const auto& visual : item.visuals) videos += visual.video && visual.fps > 0 ? 1 : 0;
  }
  EXPECT_EQ(thinking, 36U);
  EXPECT_EQ(videos, 20U);
  EXPECT_EQ(contains, 9U);
}

TEST_F(ChatItemsTest, ALimitStopsTheReading) {
  const auto items = read_chat_items(kDemoEval / "items.jsonl", 7);
  ASSERT_TRUE(items) << items.error().what;
  EXPECT_EQ(items->size(), 7U);
}

TEST_F(ChatItemsTest, ALastMessageOfTheAssistantIsTheAnswer) {
  const auto items = read(
      "\n"
      R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant",)"
      R"( "content": "Hello.", "reasoning_content": "A greeting."}], "thinking": true})"
      "\n  \n");
  ASSERT_TRUE(items) << items.error().what;
  ASSERT_EQ(items->size(), 1U);
  const auto& item = items->front();
  EXPECT_EQ(item.messages.size(), 1U);
  EXPECT_EQ(item.answer, "Hello.");
  EXPECT_EQ(item.reasoning, "A greeting.");
  EXPECT_EQ(item.id, "2");
  EXPECT_THAT(item.where, testing::EndsWith("items.jsonl:2"));
}

TEST_F(ChatItemsTest, PicturesMayBeDataUrls) {
  for (const std::string part :
       {R"({"type": "image", "image": "data:image/png;base64,QUJD"})",
        R"({"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}})"}) {
    const auto items =
        read(R"({"messages": [{"role": "user", "content": [)" + part + R"(]}], "answer": "x"})");
    ASSERT_TRUE(items) << items.error().what;
    EXPECT_EQ(*items->front().visuals.at(0).frames.at(0).bytes, "ABC");
  }
}

TEST_F(ChatItemsTest, ErrorsNameFileLineAndWhatIsWrong) {
  const std::string good = R"({"messages": [{"role": "user", "content": "Hi"}], "answer": "a"})";
  const auto with = [](const std::string& part) {
    return R"({"messages": [{"role": "user", "content": [)" + part + R"(]}], "answer": "a"})";
  };
  const auto extra = [](const std::string& members) {
    return R"({"messages": [{"role": "user", "content": "Hi"}], "answer": "a", )" + members + "}";
  };
  const struct {
    std::string line;
    Errc code;
    std::string text;
  } cases[] = {
      {R"({"messages": [)", Errc::kInvalidArgument, "not JSON"},
      {"[]", Errc::kInvalidArgument, "an object is expected"},
      {R"({"answer": "a"})", Errc::kInvalidArgument, "messages is missing"},
      {R"({"messages": [], "answer": "a"})", Errc::kInvalidArgument, "messages"},
      {R"({"messages": [{"role": "user", "content": "Hi"}]})", Errc::kInvalidArgument,
       "answer is missing"},
      {R"({"messages": [{"role": "user"}], "answer": "a"})", Errc::kInvalidArgument,
       "messages[0].content is missing"},
      {R"({"messages": [{"role": "user", "content": 3}], "answer": "a"})", Errc::kInvalidArgument,
       "messages[0].content: a string or a list"},
      {R"({"messages": [{"role": "user", "content": "Hi", "name": "x"}], "answer": "a"})",
       Errc::kInvalidArgument, "messages[0]: unknown key \"name\""},
      {R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "b"}],)"
       R"( "answer": "a"})",
       Errc::kInvalidArgument, "answer already"},
      {extra(R"("anwser": "b")"), Errc::kInvalidArgument, "unknown key \"anwser\""},
      {extra(R"("thinking": "yes")"), Errc::kInvalidArgument, "thinking: true or false"},
      {extra(R"("match": "regex")"), Errc::kUnsupported, "\"regex\""},
      {extra(R"("match": "contains")"), Errc::kInvalidArgument, "contains is missing"},
      {extra(R"("match": "contains", "contains": ["a", 1])"), Errc::kInvalidArgument, "contains"},
      {extra(R"("contains": ["a"])"), Errc::kInvalidArgument, "match is not"},
      {with(R"({"type": "audio"})"), Errc::kUnsupported, "messages[0].content[0].type"},
      {with(R"({"type": "image", "image": "no.png"})"), Errc::kNotFound, "no.png"},
      {with(R"({"type": "image", "image": "data:image/png;base64,%%"})"), Errc::kInvalidArgument,
       "messages[0].content[0]"},
      {with(R"({"type": "image", "image": "https://example.com/a.png"})"), Errc::kUnsupported,
       "a path or a data URL"},
      {with(R"({"type": "video", "frames": [], "fps": 2})"), Errc::kInvalidArgument, "frames"},
      {with(R"({"type": "video", "frames": [")" + kPicture + R"("], "fps": 0})"),
       Errc::kInvalidArgument, "fps"},
  };
  for (const auto& c : cases) {
    const auto items = read(good + "\n" + c.line + "\n" + good + "\n");
    ASSERT_FALSE(items) << c.line;
    EXPECT_EQ(items.error().code, c.code) << items.error().what;
    EXPECT_THAT(items.error().what, HasSubstr("items.jsonl:2: "));
    EXPECT_THAT(items.error().what, HasSubstr(c.text));
  }
}

TEST_F(ChatItemsTest, NothingToReadIsAnError) {
  const auto empty = read("\n\n");
  ASSERT_FALSE(empty);
  EXPECT_THAT(empty.error().what, HasSubstr("no items"));
  const auto missing = read_chat_items(dir_ / "other.jsonl");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Errc::kNotFound);
  const auto folder = read_chat_items(dir_.path());
  ASSERT_FALSE(folder);
  EXPECT_EQ(folder.error().code, Errc::kNotFound);
}

}  // namespace
}  // namespace moesaic
