#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/model/stored_quantization.hpp"

namespace moesaic {

/// Which experts a token is routed to.
enum class Modality : std::uint8_t { kText = 0, kVision = 1 };
inline constexpr std::size_t kModalities = 2;

/// The vision tower and what the resampler needs of it.
struct VisionConfig {
  std::uint32_t depth = 0;
  std::uint32_t hidden = 0;
  std::uint32_t intermediate = 0;
  std::uint32_t heads = 0;
  std::uint32_t in_channels = 3;
  std::uint32_t patch = 14;  ///< pixels
  std::uint32_t spatial_merge = 2;
  std::uint32_t temporal_merge = 2;
  float layer_norm_eps = 1e-6F;
  double rope_theta = 10000.0;

  std::uint32_t head_dim() const { return hidden / heads; }
  std::uint32_t patch_values() const { return in_channels * patch * patch; }
};

/// One model of the family, whichever layout its config.json had. All counts are validated:
/// positive, divisible where needed, within sane bounds (no number from a file can make a later
/// product overflow).
struct ModelConfig {
  std::string model_type;
  std::uint32_t vocab_size = 0;
  std::uint32_t hidden = 0;
  std::uint32_t intermediate = 0;  ///< width of the dense FFN
  std::uint32_t layers = 0;
  std::uint32_t heads = 0;
  std::uint32_t kv_heads = 0;
  std::uint32_t head_dim = 0;
  std::uint32_t max_positions = 0;
  float rms_norm_eps = 1e-5F;
  double rope_theta = 500000.0;
  std::uint32_t time_freqs = 0;  ///< freq_allocation, or the third entry of mrope_section
  std::array<std::uint32_t, kModalities> experts{};  ///< per modality
  std::array<std::uint32_t, kModalities> expert_width{};
  std::uint32_t experts_per_token = 0;
  std::uint32_t shared_width = 0;  ///< shared experts times text width; 0: none
  std::vector<bool> layer_is_moe;  ///< [layers]
  bool tie_word_embeddings = true;

  std::int32_t bos_id = 1, eos_id = 2, pad_id = 0;
  std::int32_t image_placeholder_id = -1;
  std::int32_t video_placeholder_id =
      -1;  ///< only in the native layout; -1: images' placeholder serves both
  std::int32_t image_start_id = -1, image_end_id = -1, video_start_id = -1, video_end_id = -1;

  VisionConfig vision;
  std::optional<StoredQuantization> quantization;  ///< of flat layouts; none: all floats

  /// Vision iff the id is a placeholder or one of the four delimiters.
  Modality routing_modality(std::int32_t id) const;
  bool is_placeholder(std::int32_t id) const {
    return id == image_placeholder_id || (video_placeholder_id >= 0 && id == video_placeholder_id);
  }
};

/// Parses config.json text of the original (flat) or the transformers-native (nested) layout.
/// @param file name for error texts
/// @errors kCorrupt (not JSON, wrong types), kInvalidArgument (zero heads, absurd counts, ...),
/// kUnsupported (model type); names key, found, expected
[[nodiscard]] Result<ModelConfig> parse_model_config(std::string_view json, std::string_view file);

/// Reads and parses `path` (config.json, or a directory that holds one).
[[nodiscard]] Result<ModelConfig> load_model_config(const std::filesystem::path& path);

}  // namespace moesaic
