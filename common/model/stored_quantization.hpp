#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace moesaic {

/// How a checkpoint stores the elements of a linear.
enum class StoredFormat : std::uint8_t {
  kFloat,  ///< bf16, f16 or f32
  kWint8,  ///< int8, a scale an output feature
  kWint4,  ///< 4 bits, a scale an output feature
  kWint2,  ///< CCQ-2
};

constexpr std::string_view format_name(StoredFormat format) {
  switch (format) {
    case StoredFormat::kFloat:
      return "floats";
    case StoredFormat::kWint8:
      return "WINT8";
    case StoredFormat::kWint4:
      return "WINT4";
    case StoredFormat::kWint2:
      return "WINT2";
  }
  return "?";
}

/// What `quantization_config` of a published config.json says of linears that are stored quantised.
/// Embeddings, routers, norms and the vision tower never are.
struct StoredQuantization {
  StoredFormat dense = StoredFormat::kFloat;  ///< attention, dense and shared feed-forward
  /// Experts of layers up to `last_early_layer`, and of those after it.
  StoredFormat early_experts = StoredFormat::kFloat, experts = StoredFormat::kFloat;
  std::int64_t last_early_layer = -1;

  StoredFormat of_experts(std::uint32_t layer) const {
    return std::int64_t{layer} <= last_early_layer ? early_experts : experts;
  }
};

/// One line for people.
std::string describe(const StoredQuantization& stored);

}  // namespace moesaic
