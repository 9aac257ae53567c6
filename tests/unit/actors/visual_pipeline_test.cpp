#include "actors/vision_encoder/visual_pipeline.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "common/metrics/metrics.hpp"
#include "common/model/config.hpp"

namespace moesaic {
namespace {

const std::string kDemo = std::string(MOESAIC_SOURCE_DIR) + "/configs/models/ernie-vl-demo";

std::shared_ptr<const std::string> file(const std::string& name) {
  std::ifstream in(kDemo + "/examples/" + name, std::ios::binary);
  std::ostringstream bytes;
  bytes << in.rdbuf();
  return std::make_shared<const std::string>(bytes.str());
}

VisualPipelineParts parts(std::size_t cache_bytes) {
  VisualPipelineParts made;
  made.config = *load_model_config(kDemo);
  made.weights = std::make_shared<const VisionWeights>(
      *load_vision(made.config, **open_checkpoint(kDemo, made.config), Compute::kBf16));
  made.pool = std::make_shared<ThreadPool>(2);
  made.preprocess = *PreprocessConfig::load(kDemo);
  made.cache_bytes = cache_bytes;
  return made;
}

VisualItem image(const std::string& name) { return {false, 0, {file(name)}}; }

TEST(VisualPipelineTest, EqualContentIsEncodedOnce) {
  VisualPipeline pipeline(parts(64 << 20));
  const auto first = pipeline.encode(image("digit.png"));
  ASSERT_TRUE(first) << first.error().what;
  EXPECT_EQ((*first)->values.size(), (*first)->rows * 192);
  const auto again = pipeline.encode(image("digit.png"));
  ASSERT_TRUE(again);
  EXPECT_EQ(first->get(), again->get());
  const auto other = pipeline.encode(image("sneaker.png"));
  ASSERT_TRUE(other);
  EXPECT_NE((*other)->content_hash, (*first)->content_hash);
  EXPECT_EQ(pipeline.status().encoded, 2U);
  EXPECT_EQ(pipeline.status().cache_hits, 1U);
  EXPECT_EQ(pipeline.status().cache_misses, 2U);
}

TEST(VisualPipelineTest, CountsItsStages) {
  const auto grown = [](const std::string& series, auto&& work) {
    const auto read = [&] {
      const auto text = "\n" + metrics::expose();
      const auto at = text.find("\n" + series + " ");
      return at == std::string::npos ? 0 : std::stod(text.substr(at + series.size() + 2));
    };
    const auto before = read();
    work();
    return read() - before;
  };
  VisualPipeline pipeline(parts(64 << 20));
  const auto encode = [&](const std::string& name) {
    return [&pipeline, name] { ASSERT_TRUE(pipeline.encode(image(name))); };
  };
  EXPECT_EQ(grown("moesaic_vision_encode_seconds_count", encode("digit.png")), 1);
  EXPECT_EQ(grown("moesaic_vision_encode_seconds_count", encode("digit.png")), 0);
  EXPECT_EQ(grown("moesaic_vision_decode_seconds_count", encode("digit.png")), 1);
  EXPECT_EQ(grown("moesaic_vision_cache_hits_total", encode("digit.png")), 1);
  EXPECT_EQ(grown("moesaic_vision_cache_misses_total", encode("sneaker.png")), 1);
  const auto rows = (*pipeline.encode(image("sneaker.png")))->rows;
  VisualPipeline fresh(parts(64 << 20));
  EXPECT_EQ(grown("moesaic_vision_tokens_per_image_sum",
                  [&] { ASSERT_TRUE(fresh.encode(image("sneaker.png"))); }),
            rows);
}

TEST(VisualPipelineTest, AFrameAndAnImageOfTheSamePixelsDiffer) {
  VisualPipeline pipeline(parts(64 << 20));
  const auto still = pipeline.encode(image("digit.png"));
  const auto video = pipeline.encode({true, 2, {file("digit.png"), file("digit.png")}});
  ASSERT_TRUE(still && video);
  EXPECT_TRUE((*video)->video);
  EXPECT_EQ((*video)->grid[0], 2);
  EXPECT_NE((*still)->content_hash, (*video)->content_hash);
}

TEST(VisualPipelineTest, BadFilesAreErrorsAndTheNextOneWorks) {
  VisualPipeline pipeline(parts(64 << 20));
  const auto text = pipeline.encode({false, 0, {std::make_shared<const std::string>("hello")}});
  ASSERT_FALSE(text);
  const auto whole = file("digit.png");
  const auto half = pipeline.encode(
      {false, 0, {std::make_shared<const std::string>(whole->substr(0, whole->size() / 2))}});
  ASSERT_FALSE(half);
  EXPECT_EQ(half.error().code, Errc::kCorrupt);
  EXPECT_FALSE(pipeline.encode({false, 0, {}}));
  EXPECT_TRUE(pipeline.encode(image("digit.png")));
}

TEST(FeatureCacheTest, EvictsTheLeastRecentlyUsedFirst) {
  FeatureCache cache(3 * 100 * sizeof(float));
  const auto features = [](const std::string& hash, std::size_t values) {
    auto made = std::make_shared<VisualFeatures>();
    made->values.resize(values);
    made->content_hash = hash;
    return made;
  };
  for (const auto* hash : {"a", "b", "c"}) cache.insert(features(hash, 100));
  EXPECT_TRUE(cache.find("a"));
  cache.insert(features("d", 100));
  EXPECT_FALSE(cache.find("b")) << "not used since a was";
  EXPECT_TRUE(cache.find("a"));
  EXPECT_TRUE(cache.find("c"));
  EXPECT_TRUE(cache.find("d"));
  cache.insert(features("huge", 301));
  EXPECT_FALSE(cache.find("huge"));
  EXPECT_EQ(cache.bytes(), 300 * sizeof(float)) << "what cannot fit pushes nothing out";
}

}  // namespace
}  // namespace moesaic
