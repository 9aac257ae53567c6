#include "common/trace/traceparent.hpp"

#include <gtest/gtest.h>

#include <string>

namespace moesaic {
namespace {

const std::string kExample = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(TraceparentTest, ReadsAndWritesTheExampleOfTheStandard) {
  const auto context = parse_traceparent(kExample);
  ASSERT_TRUE(context);
  EXPECT_EQ(context->trace_id[0], 0x0a);
  EXPECT_EQ(context->trace_id[15], 0x9c);
  EXPECT_EQ(context->span_id[0], 0xb7);
  EXPECT_EQ(context->span_id[7], 0x31);
  EXPECT_TRUE(context->sampled);
  EXPECT_EQ(format_traceparent(*context), kExample);
}

TEST(TraceparentTest, OnlyTheLowestFlagMeansSampled) {
  auto text = kExample;
  for (const auto& [flags, sampled] :
       {std::pair{"00", false}, {"01", true}, {"02", false}, {"ff", true}}) {
    text.replace(53, 2, flags);
    const auto context = parse_traceparent(text);
    ASSERT_TRUE(context) << text;
    EXPECT_EQ(context->sampled, sampled) << text;
  }
}

TEST(TraceparentTest, ReadsLaterVersionsByTheirBeginning) {
  for (const auto& tail : {"", "-", "-anything at all"}) {
    auto text = kExample + tail;
    text.replace(0, 2, "cc");
    EXPECT_EQ(parse_traceparent(text), parse_traceparent(kExample)) << text;
  }
}

TEST(TraceparentTest, RefusesWhatTheStandardDoes) {
  const auto with = [](std::size_t at, const std::string& what) {
    auto text = kExample;
    return text.replace(at, what.size(), what);
  };
  for (const auto& text :
       {std::string(), kExample.substr(1), kExample.substr(0, 54), kExample + "-", kExample + "0",
        with(0, "ff"), with(0, "0g"), with(3, std::string(32, '0')), with(36, std::string(16, '0')),
        with(3, "0AF7"), with(36, "B7"), with(53, "0G"), with(2, "_"), with(35, " "), with(52, "x"),
        " " + kExample, with(0, "cc") + "x"}) {
    EXPECT_FALSE(parse_traceparent(text)) << text;
  }
}

}  // namespace
}  // namespace moesaic
