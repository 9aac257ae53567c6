#include "common/http/line_splitter.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace moesaic {
namespace {

using testing::ElementsAre;
using Outcome = LineSplitter::Outcome;

TEST(LineSplitterTest, PutsLinesTogetherWhereverTheyAreCut) {
  const std::string text = "one\n\ntwo\r\nthree\r\r\nrest";
  for (std::size_t step = 1; step <= text.size(); ++step) {
    LineSplitter splitter(7);
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size(); at += step) {
      ASSERT_EQ(splitter.feed(std::string_view(text).substr(at, step),
                              [&](std::string_view line) {
                                lines.emplace_back(line);
                                return true;
                              }),
                Outcome::kMore);
    }
    EXPECT_THAT(lines, ElementsAre("one", "", "two", "three\r")) << step;
    EXPECT_EQ(splitter.rest(), "rest");
  }
}

TEST(LineSplitterTest, NeverHoldsMoreThanItsLimit) {
  const auto ignore = [](std::string_view) { return true; };
  LineSplitter splitter(4);
  EXPECT_EQ(splitter.feed("1234\n1234", ignore), Outcome::kMore);
  EXPECT_EQ(splitter.feed("5", ignore), Outcome::kTooLong);
  EXPECT_EQ(splitter.rest(), "1234");
  EXPECT_EQ(LineSplitter(4).feed("12345\n", ignore), Outcome::kTooLong);
}

TEST(LineSplitterTest, StopsWhenTheSinkHasEnough) {
  std::vector<std::string> lines;
  LineSplitter splitter(10);
  EXPECT_EQ(splitter.feed("a\nb\nc\n",
                          [&](std::string_view line) {
                            lines.emplace_back(line);
                            return line != "b";
                          }),
            Outcome::kStopped);
  EXPECT_THAT(lines, ElementsAre("a", "b"));
}

}  // namespace
}  // namespace moesaic
