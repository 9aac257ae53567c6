#include "common/kernels/weight_format.hpp"

#include <array>

namespace moesaic {
namespace {

constexpr std::array<std::string_view, 7> kNames = {"f32",  "bf16",   "w8",     "w4",
                                                    "ccq2", "ccq2.5", "ccq2.75"};

}  // namespace

std::string_view format_name(WeightFormat format) {
  return kNames[static_cast<std::size_t>(format)];
}

std::optional<WeightFormat> parse_format(std::string_view name) {
  for (std::size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<WeightFormat>(i);
  return std::nullopt;
}

}  // namespace moesaic
