#pragma once

#include <cstddef>
#include <cstdint>

#include "common/kernels/cpu/attention_impl.hpp"
#include "common/kernels/cpu/attention_vision_tiles.hpp"

// What the tiles do in the vision tower's attention, step by step, and in which order.
namespace moesaic::attention_detail::vision_steps {

inline constexpr std::size_t kUnit = 32;  ///< queries that share a tile of keys in registers
inline constexpr std::size_t kPair = 2;   ///< units that share it in L1
inline constexpr std::size_t kScoreBytes = kUnit * kVisionKeyBlock * sizeof(float);  ///< of a unit

/// A pair of units (or the last one) against one block of keys.
struct Item {
  std::size_t unit = 0;   ///< the first
  std::size_t units = 0;  ///< 0: no item
  std::size_t block = 0;
  std::size_t keys = 0;
  std::byte* scores = nullptr;
  /// Queries whose maximum moved, and what that makes of their sums.
  std::uint64_t moved = 0;
  float factor[kPair * kUnit];

  std::size_t groups() const { return (keys + 31) / 32; }
};

/// One step of the tiles: four products (or two, without b2) of 32 queries, 16 columns each of
/// b1 and b2, 32 k. Tiles 0, 1 (2, 3) are the sums of the first (second) 16 queries.
struct Step {
  enum class Begin { kGoOn, kZero, kLoad };

  const std::byte* a1;
  const std::byte* a2;
  const std::byte* b1;
  const std::byte* b2;
  std::byte* c1;  ///< first 16 queries: a tile for b1, then one for b2
  std::byte* c2;  ///< second 16 queries
  Begin begin;
  bool end;
};
enum class Products { kNone, kTwo, kFour };

/// The tile side of a stage: adds the weights of `last` times its values to o, then computes the
/// scores of `next`. What one unit of a pair has read of values and keys the other finds in L1.
class TileWork {
 public:
  TileWork(const VisionHeadLayout& layout, const std::byte* q, const std::byte* keys,
           const std::byte* values, std::byte* o, const Item& last, const Item& next)
      : layout_(layout),
        weights_(last.scores),
        values_(values + last.block * (kVisionKeyBlock / 32) * layout.value_bytes()),
        o_(o + last.unit * 2 * layout.value_tiles * kTileBytes),
        value_units_(last.units),
        value_groups_(last.groups()),
        value_steps_(last.units * value_groups_ * ((layout.value_tiles + 1) / 2)),
        q_(q + next.unit * layout.pair_bytes()),
        keys_(keys + next.block * (kVisionKeyBlock / 32) * layout.pair_bytes()),
        scores_(next.scores),
        score_units_(next.units),
        steps_(value_steps_ + next.units * next.groups() * layout.score_steps) {}

  std::size_t steps() const { return steps_; }

  /// What comes next. @pre fewer than steps() calls so far
  Products next(Step& step) {
    if (done_ == value_steps_) unit_ = 0;
    return done_++ < value_steps_ ? value(step) : score(step);
  }

 private:
  /// 32 queries x 32 d (the last 16 where value_tiles is odd), 32 keys.
  Products value(Step& step) {
    step.c1 = o_ + (unit_ * 2 * layout_.value_tiles + d_) * kTileBytes;
    step.c2 = step.c1 + layout_.value_tiles * kTileBytes;
    step.b1 = values_ + (j_ * layout_.value_tiles + d_) * kTileBytes;
    step.b2 = step.b1 + kTileBytes;
    step.a1 = weights_ + unit_ * kScoreBytes + 2 * j_ * kTileBytes;
    step.a2 = step.a1 + 16 * kTileBytes;
    step.begin = j_ == 0 ? Step::Begin::kLoad : Step::Begin::kGoOn;
    step.end = ++j_ == value_groups_;
    const bool two = d_ + 1 < layout_.value_tiles;
    if (step.end) {
      j_ = 0;
      if (++unit_ == value_units_) unit_ = 0, d_ += 2;
    }
    return two ? Products::kFour : Products::kTwo;
  }

  /// 32 queries x 32 keys, 32 d.
  Products score(Step& step) {
    step.c1 = scores_ + unit_ * kScoreBytes;
    step.c2 = step.c1 + 16 * kTileBytes;
    step.a1 = q_ + unit_ * layout_.pair_bytes() + k_ * kTileBytes;
    step.a2 = step.a1 + layout_.score_steps * kTileBytes;
    step.b1 = keys_ + 2 * k_ * kTileBytes;
    step.b2 = step.b1 + kTileBytes;
    step.begin = k_ == 0 ? Step::Begin::kZero : Step::Begin::kGoOn;
    step.end = ++k_ == layout_.score_steps;
    if (step.end) {
      k_ = 0;
      if (++unit_ == score_units_) {
        unit_ = 0;
        keys_ += 2 * layout_.score_steps * kTileBytes;
        scores_ += 2 * kTileBytes;
      }
    }
    return Products::kFour;
  }

  const VisionHeadLayout& layout_;
  const std::byte* weights_;
  const std::byte* values_;
  std::byte* o_;
  std::size_t value_units_, value_groups_, value_steps_;
  const std::byte* q_;
  const std::byte* keys_;
  std::byte* scores_;
  std::size_t score_units_;
  std::size_t steps_;
  std::size_t done_ = 0, unit_ = 0, d_ = 0, j_ = 0, k_ = 0;
};

}  // namespace moesaic::attention_detail::vision_steps
