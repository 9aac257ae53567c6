#pragma once

#include <cstddef>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>

#include "actors/contracts/actors.hpp"
#include "common/base/thread_pool.hpp"
#include "common/media/preprocess.hpp"
#include "common/metrics/metrics.hpp"
#include "common/model/vision_tower.hpp"
#include "common/trace/tracer.hpp"

namespace moesaic {

/// Features by content hash, least recently used first out. One thread.
class FeatureCache {
 public:
  explicit FeatureCache(std::size_t max_bytes) : max_bytes_(max_bytes) {}
  /// Null if unknown.
  VisualFeaturesPtr find(const std::string& hash);
  void insert(VisualFeaturesPtr features);
  std::size_t bytes() const { return bytes_; }

 private:
  static std::size_t size_of(const VisualFeatures& features) {
    return features.values.size() * sizeof(float);
  }

  std::size_t max_bytes_;
  std::size_t bytes_ = 0;
  std::list<VisualFeaturesPtr> order_;  ///< most recently used first
  std::unordered_map<std::string, std::list<VisualFeaturesPtr>::iterator> by_hash_;
};

/// moesaic_vision_*.
struct VisionMetrics {
  metrics::Histogram decode = metrics::histogram("moesaic_vision_decode_seconds");
  metrics::Histogram resize = metrics::histogram("moesaic_vision_resize_seconds");
  metrics::Histogram encode = metrics::histogram("moesaic_vision_encode_seconds");
  metrics::Histogram tokens = metrics::histogram("moesaic_vision_tokens_per_image");
  metrics::Counter hits = metrics::counter("moesaic_vision_cache_hits_total");
  metrics::Counter misses = metrics::counter("moesaic_vision_cache_misses_total");
};

/// What a vision encoder is made of.
struct VisualPipelineParts {
  ModelConfig config;
  std::shared_ptr<const VisionWeights> weights;
  Compute compute = Compute::kBf16;
  std::shared_ptr<ThreadPool> pool;
  PreprocessConfig preprocess;
  ImageLimits limits;  ///< of each file
  std::size_t cache_bytes = std::size_t{256} << 20;
  Tracer tracer{};
};

/// From files to embeddings: decode, resize, ViT, resampler; equal content is encoded once. Knows
/// nothing of actors; one thread at a time.
class VisualPipeline {
 public:
  explicit VisualPipeline(VisualPipelineParts parts);

  /// @errors those of `decode_image`, `preprocess_image` and `preprocess_video`
  [[nodiscard]] Result<VisualFeaturesPtr> encode(const VisualItem& item);
  const VisionStatus& status() const { return status_; }

 private:
  Result<VisualFeaturesPtr> encode(const VisualItem& item, Span& span);

  VisualPipelineParts parts_;
  VisionTower tower_;
  FeatureCache cache_;
  VisionStatus status_;
  VisionMetrics metrics_;
};

}  // namespace moesaic
