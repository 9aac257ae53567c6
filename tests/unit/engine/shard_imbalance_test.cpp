#include "common/engine/shard_imbalance.hpp"

#include <gtest/gtest.h>

#include <array>

namespace moesaic {
namespace {

TEST(ImbalanceRatioTest, IsTheBusiestOverTheMean) {
  // Mean (30 + 10 + 20) / 3 = 20, busiest 30.
  EXPECT_DOUBLE_EQ(imbalance_ratio(std::array<std::uint64_t, 3>{30, 10, 20}), 1.5);
  EXPECT_DOUBLE_EQ(imbalance_ratio(std::array<std::uint64_t, 4>{7, 7, 7, 7}), 1);
  EXPECT_DOUBLE_EQ(imbalance_ratio(std::array<std::uint64_t, 4>{0, 8, 0, 0}), 4);
}

TEST(ImbalanceRatioTest, NothingToDoIsEven) {
  EXPECT_DOUBLE_EQ(imbalance_ratio(std::array<std::uint64_t, 2>{0, 0}), 1);
  EXPECT_DOUBLE_EQ(imbalance_ratio({}), 1);
}

}  // namespace
}  // namespace moesaic
