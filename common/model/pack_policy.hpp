#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/model/weight_encoder.hpp"

namespace moesaic {

/// Which component of which layers is stored in which format.
class PackPolicy {
 public:
  /// Every matrix of the text side in one format; the vision tower stays bf16.
  static PackPolicy uniform(WeightFormat format);

  /// @param layer of the decoder; components without layers have 0
  WeightFormat at(Component component, std::uint32_t layer) const;
  /// True if some matrix of the text side is of an integer format.
  bool quantized() const;

  struct Rule {
    Component component{};
    std::uint32_t first_layer = 0, last_layer = 0xffffffffU;
    WeightFormat format = WeightFormat::kBf16;
  };
  /// Later rules win.
  void add(Rule rule) { rules_.push_back(rule); }
  const std::vector<Rule>& rules() const { return rules_; }

 private:
  std::vector<Rule> rules_;
};

/// Reads a policy from YAML:
///   default: w4                # every component but vision, which stays bf16
///   attention: w8
///   text_experts: {format: ccq2, layers: "1-20"}
///   vision_experts: [{format: ccq2, layers: "1-13"}, {format: w4, layers: "14-27"}]
///   vision: w8                 # bf16 or w8
/// @param layers of the model @param file for error texts
/// @errors kInvalidArgument: an unknown component or format, a format the vision tower does not
///         take, or a layer the model has not
[[nodiscard]] Result<PackPolicy> parse_policy(std::string_view yaml, std::uint32_t layers,
                                              std::string_view file);

/// `parse_policy` of a file of at most 1 MiB.
/// @errors those of `read_file` and `parse_policy`
[[nodiscard]] Result<PackPolicy> load_policy(const std::filesystem::path& file,
                                             std::uint32_t layers);

}  // namespace moesaic
