#include "actors/vision_encoder/visual_pipeline.hpp"

#include <chrono>
#include <utility>

#include "common/media/content_hash.hpp"

namespace moesaic {
namespace {

/// Runs `work` and adds the time it took.
template <class F>
auto timed(metrics::Histogram& seconds, F&& work) {
  const auto begun = std::chrono::steady_clock::now();
  auto result = std::forward<F>(work)();
  seconds.observe(std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
  return result;
}

}  // namespace

VisualFeaturesPtr FeatureCache::find(const std::string& hash) {
  const auto it = by_hash_.find(hash);
  if (it == by_hash_.end()) return nullptr;
  order_.splice(order_.begin(), order_, it->second);
  return order_.front();
}

void FeatureCache::insert(VisualFeaturesPtr features) {
  const auto bytes = size_of(*features);
  if (bytes > max_bytes_ || by_hash_.count(features->content_hash) > 0) return;
  while (bytes_ + bytes > max_bytes_) {
    bytes_ -= size_of(*order_.back());
    by_hash_.erase(order_.back()->content_hash);
    order_.pop_back();
  }
  bytes_ += bytes;
  order_.push_front(std::move(features));
  by_hash_.emplace(order_.front()->content_hash, order_.begin());
}

VisualPipeline::VisualPipeline(VisualPipelineParts parts)
    : parts_(std::move(parts)),
      tower_(parts_.config, parts_.weights, parts_.compute),
      cache_(parts_.cache_bytes) {}

Result<VisualFeaturesPtr> VisualPipeline::encode(const VisualItem& item) {
  auto span = parts_.tracer.start("encode", SpanKind::kServer, item.trace);
  auto features = encode(item, span);
  if (!features) span.fail("encode");
  return features;
}

Result<VisualFeaturesPtr> VisualPipeline::encode(const VisualItem& item, Span& span) {
  std::vector<RgbImage> frames;
  for (const auto& file : item.frames) {
    MOESAIC_TRY(auto frame,
                timed(metrics_.decode, [&] { return decode_image(*file, parts_.limits); }));
    frames.push_back(std::move(frame));
  }
  if (frames.empty()) return fail(Errc::kInvalidArgument, "a visual item without frames");
  auto hash = item.video ? video_content_hash(parts_.preprocess, frames, item.fps)
                         : image_content_hash(parts_.preprocess, frames.front());
  span.set("moesaic.vision.frames", static_cast<std::int64_t>(item.frames.size()));
  auto known = cache_.find(hash);
  span.set("moesaic.vision.cached", known != nullptr);
  if (known) {
    ++status_.cache_hits;
    metrics_.hits.add();
    return known;
  }
  ++status_.cache_misses;
  metrics_.misses.add();
  MOESAIC_TRY(const auto prepared, timed(metrics_.resize, [&] {
                return item.video ? preprocess_video(parts_.preprocess, std::move(frames), item.fps)
                                  : preprocess_image(parts_.preprocess, frames.front());
              }));
  auto features = std::make_shared<VisualFeatures>();
  features->video = item.video;
  features->grid = prepared.input.grid;
  features->rows = visual_rows(parts_.config.vision, features->grid);
  features->hidden = parts_.config.hidden;
  features->values = timed(metrics_.encode, [&] {
    return tower_.encode(prepared.input.patches, features->grid, *parts_.pool);
  });
  metrics_.tokens.observe(static_cast<double>(features->rows));
  features->content_hash = std::move(hash);
  ++status_.encoded;
  cache_.insert(features);
  return features;
}

}  // namespace moesaic
