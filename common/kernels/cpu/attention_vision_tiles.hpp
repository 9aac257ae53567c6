#pragma once

#include <cstddef>

// How the vision tower's attention on tiles wants its queries, keys and values.
namespace moesaic::attention_detail {

/// Largest head size that goes on tiles.
inline constexpr std::size_t kMostTileDim = 256;
inline constexpr std::size_t kTileBytes = 1024;  ///< 16 rows of 64

/// Where the tiles of one head stand. D is the head size padded to 16.
///   q      [patch / 32][2][score_steps][16 queries][32 d]
///   keys   [patch / 32][score_steps][2][16 pairs of d][16 keys][2]
///   values [patch / 32][D / 16][16 pairs of keys][16 d][2]
struct VisionHeadLayout {
  std::size_t score_steps = 0;  ///< of 32 d; D is padded with zeros for them
  std::size_t value_tiles = 0;  ///< of 16 d
  std::size_t blocks = 0;       ///< of 32 patches

  VisionHeadLayout(std::size_t head_dim, std::size_t patches)
      : score_steps((head_dim + 31) / 32),
        value_tiles((head_dim + 15) / 16),
        blocks((patches + 31) / 32) {}
  std::size_t pair_bytes() const { return 2 * score_steps * kTileBytes; }  ///< 32 queries or keys
  std::size_t value_bytes() const { return value_tiles * kTileBytes; }     ///< 32 values
  std::size_t keys_offset() const { return blocks * pair_bytes(); }
  std::size_t values_offset() const { return 2 * keys_offset(); }
  std::size_t bytes() const { return values_offset() + blocks * value_bytes(); }
};

/// What is packed: q, k and v of all patches, rotated on the way where angles are given.
struct VisionRows {
  const float* qkv;  ///< [patches][3][heads][head_dim]
  const float* cos;  ///< [patches][head_dim / 2], or null
  const float* sin;
  std::size_t patches, heads, head_dim;

  const float* at(std::size_t patch, std::size_t which, std::size_t head) const {
    return qkv + ((patch * 3 + which) * heads + head) * head_dim;
  }
};

/// Packs 32 patches of all heads, on the calling thread; those that are not there become zeros. q
/// is scaled by 1 / sqrt(head_dim), all is rounded to bf16.
/// @param block  which 32: patches 32 * block ..
/// @param memory [heads] of `layout`
/// @param rows   scratch for the keys: [heads][32][score_steps][32 d] bf16
/// @pre level kAmx is available, memory and rows begin on cache lines, head_dim <= kMostTileDim
void pack_vision_block(const VisionHeadLayout& layout, const VisionRows& in, std::size_t block,
                       std::byte* memory, std::byte* rows);

}  // namespace moesaic::attention_detail
