#include "common/model/vision_tower.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "common/base/read_file.hpp"
#include "common/model/pack.hpp"
#include "common/model/positions.hpp"
#include "common/model/weight_source.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

class NoTaps final : public TapSink {
 public:
  void put(const std::string&, std::span<const float>, std::span<const std::size_t>) override {}
  void put(const std::string&, std::span<const std::int32_t>,
           std::span<const std::size_t>) override {}
  bool fine() const override { return false; }
};

const std::string kDemo = std::string(MOESAIC_SOURCE_DIR) + "/configs/models/ernie-vl-demo";

std::vector<float> test_patches(const ModelConfig& config, const VisualGrid& grid) {
  std::vector<float> patches(static_cast<std::size_t>(grid[0] * grid[1] * grid[2]) *
                             config.vision.patch_values());
  for (std::size_t i = 0; i < patches.size(); ++i)
    patches[i] = static_cast<float>(i * 2654435761U % 1000) / 250.0F - 2.0F;
  return patches;
}

TEST(VisionTowerTest, ALongVideoGivesTheSameBitsInPieces) {
  const auto config = *load_model_config(kDemo);
  const auto source = *open_checkpoint(kDemo, config);
  const auto weights =
      std::make_shared<const VisionWeights>(*load_vision(config, *source, Compute::kBf16));
  // More patches than the largest picture has; an odd number of pieces.
  const VisualGrid grid{54, 22, 22};
  const auto patches = test_patches(config, grid);
  ThreadPool pool(2);
  VisionTower whole(config, weights, Compute::kBf16), pieces(config, weights, Compute::kBf16);
  NoTaps taps;  // with taps a video is computed in one piece
  const auto want = whole.encode(patches, grid, pool, &taps);
  const auto got = pieces.encode(patches, grid, pool);
  EXPECT_EQ(want.size(), visual_rows(config.vision, grid) * config.hidden);
  EXPECT_EQ(got, want);
}

TEST(VisionTowerTest, EightBitWeightsFromAPackStayCloseToBf16) {
  const auto config = *load_model_config(kDemo);
  const auto source = *open_checkpoint(kDemo, config);
  ThreadPool pool(2);
  const test::TempDir temp;
  PackOptions options;
  options.policy = *parse_policy("default: bf16\nvision: w8\n", config.layers, "a policy");
  options.source = "a test";
  options.copy_from = kDemo;
  ASSERT_TRUE(write_pack(config, *read_file(kDemo + "/config.json", 1 << 20), *source, options,
                         temp.path() / "p", pool, {}));
  const auto pack = *Pack::open(temp.path() / "p", config);
  EXPECT_EQ(pack->compute(), Compute::kBf16);  // of the text side
  const auto w8 = std::make_shared<const VisionWeights>(*pack->vision(pool, {}));
  EXPECT_EQ(w8->blocks.front().fc1.weight.format, WeightFormat::kW8r);
  EXPECT_EQ(w8->mlp.weight.format, WeightFormat::kW8r);

  const auto bf16 =
      std::make_shared<const VisionWeights>(*load_vision(config, *source, Compute::kBf16));
  const VisualGrid grid{1, 12, 16};
  const auto patches = test_patches(config, grid);
  const auto want = VisionTower(config, bf16, Compute::kBf16).encode(patches, grid, pool);
  const auto got = VisionTower(config, w8, Compute::kBf16).encode(patches, grid, pool);
  ASSERT_EQ(got.size(), want.size());
  double error = 0, size = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    error += (got[i] - want[i]) * (got[i] - want[i]);
    size += want[i] * want[i];
  }
  const double decibels = 10 * std::log10(size / error);
  RecordProperty("decibels", std::to_string(decibels));
  EXPECT_GT(decibels, 25);
  EXPECT_LT(decibels, 60) << "weights in 8 bits can't be that close";
}

}  // namespace
}  // namespace moesaic
