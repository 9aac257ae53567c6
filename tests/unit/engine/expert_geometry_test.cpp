#include "common/engine/expert_geometry.hpp"

#include <gtest/gtest.h>

namespace moesaic {
namespace {

ModelConfig small() {
  ModelConfig config;
  config.layers = 3;
  config.layer_is_moe = {false, true, true};
  config.hidden = 192;
  config.experts = {16, 8};
  config.expert_width = {64, 32};
  config.experts_per_token = 4;
  return config;
}

TEST(ExpertGeometryTest, CountsWhatTravelsAndWhatIsHeld) {
  const auto g = expert_geometry(small(), Compute::kBf16);
  // gate, up and down of 192 x 64 in bf16; widths of 32 are padded to 64 columns in `down`.
  EXPECT_EQ(g.expert_bytes[0], 3U * 192 * 64 * 2);
  EXPECT_EQ(g.expert_bytes[1], (2U * 192 * 32 + 192 * 64) * 2);
  EXPECT_EQ(g.row_bytes, 384U);
  EXPECT_EQ(g.node_bytes, 384U);
  EXPECT_EQ(expert_geometry(small(), Compute::kF32).row_bytes, 768U);
}

TEST(ExpertGeometryTest, EvenRangesAreAlignedAndLeaveDenseLayersOut) {
  const auto table = cluster::PlacementTable::even_ranges(expert_geometry(small(), Compute::kBf16),
                                                          {"a", "b", "c", "d"});
  EXPECT_EQ(table.epoch, 1U);
  EXPECT_EQ(table.at(0, 0, 0), 0U) << "layer 0 is dense";
  for (const std::size_t layer : {1U, 2U}) {
    for (std::size_t e = 0; e < 16; ++e) EXPECT_EQ(table.at(layer, 0, e), 1U << e / 4) << e;
    for (std::size_t e = 0; e < 8; ++e) EXPECT_EQ(table.at(layer, 1, e), 1U << e / 2) << e;
  }
}

}  // namespace
}  // namespace moesaic
