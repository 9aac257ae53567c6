#include "common/base/load_state.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace moesaic {
namespace {

using testing::HasSubstr;

TEST(LoadStateTest, SaysNothingUnlessSomethingIsBeingLoaded) {
  LoadState state;
  EXPECT_EQ(state.json(), "");
  state.set(1, 2, "decoder");
  EXPECT_NE(state.json(), "");
  state.done();
  EXPECT_EQ(state.json(), "");
}

TEST(LoadStateTest, TheRateIsThatOfThisLoad) {
  LoadState state;
  // What was there already, a shard's experts of an earlier placement, has not been loaded now.
  state.set(1'000'000'000, 4'000'000'000, "layer 0");
  EXPECT_EQ(
      state.json(),
      R"({"bytes":1000000000,"total_bytes":4000000000,"bytes_per_second":0,"what":"layer 0"})");
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  state.set(1'000'001'000, 4'000'000'000, "layer 1");
  EXPECT_THAT(state.json(), HasSubstr("\"bytes\":1000001000"));
  const auto text = state.json();
  const auto rate = std::stod(text.substr(text.find("second\":") + 8));
  EXPECT_GT(rate, 0);
  EXPECT_LE(rate, 1000 / 0.02);
}

}  // namespace
}  // namespace moesaic
