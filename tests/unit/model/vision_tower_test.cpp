#include "common/model/vision_tower.hpp"

#include <gtest/gtest.h>

#include "common/model/positions.hpp"
#include "common/model/weight_source.hpp"

namespace moesaic {
namespace {

class NoTaps final : public TapSink {
 public:
  void put(const std::string&, std::span<const float>, std::span<const std::size_t>) override {}
  void put(const std::string&, std::span<const std::int32_t>,
           std::span<const std::size_t>) override {}
  bool fine() const override { return false; }
};

TEST(VisionTowerTest, ALongVideoGivesTheSameBitsInPieces) {
  const std::string demo = std::string(MOESAIC_SOURCE_DIR) + "/configs/models/ernie-vl-demo";
  const auto config = *load_model_config(demo);
  const auto source = *open_checkpoint(demo, config);
  const auto weights =
      std::make_shared<const VisionWeights>(*load_vision(config, *source, Compute::kBf16));
  // More patches than the largest picture has; an odd number of pieces.
  const VisualGrid grid{54, 22, 22};
  std::vector<float> patches(std::size_t{54} * 22 * 22 * config.vision.patch_values());
  for (std::size_t i = 0; i < patches.size(); ++i)
    patches[i] = static_cast<float>(i * 2654435761U % 1000) / 250.0F - 2.0F;
  ThreadPool pool(2);
  VisionTower whole(config, weights, Compute::kBf16), pieces(config, weights, Compute::kBf16);
  NoTaps taps;  // with taps a video is computed in one piece
  const auto want = whole.encode(patches, grid, pool, &taps);
  const auto got = pieces.encode(patches, grid, pool);
  EXPECT_EQ(want.size(), visual_rows(config.vision, grid) * config.hidden);
  EXPECT_EQ(got, want);
}

}  // namespace
}  // namespace moesaic
