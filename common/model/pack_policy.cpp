#include "common/model/pack_policy.hpp"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <span>

#include "common/base/read_file.hpp"

namespace moesaic {
namespace {

tl::unexpected<Error> bad(std::string_view file, const std::string& what) {
  return fail(Errc::kInvalidArgument, std::string(file) + ": " + what);
}

std::string joined(std::span<const std::string_view> names) {
  std::string text;
  for (const auto name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

Result<WeightFormat> read_format(const YAML::Node& node, std::string_view file,
                                 const std::string& where) {
  const auto name = node.IsScalar() ? node.Scalar() : std::string();
  const auto format = parse_format(name);
  if (!format || *format == WeightFormat::kF32)
    return bad(file, where + ": format \"" + name + "\"; there are: " + joined(kPackFormatNames));
  return *format;
}

/// "7" or "1-7".
Result<void> read_layers(const std::string& text, std::uint32_t layers, std::string_view file,
                         const std::string& where, PackPolicy::Rule& rule) {
  const auto dash = text.find('-');
  const auto number = [](std::string_view part, std::uint32_t& out) {
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), out);
    return error == std::errc() && end == part.data() + part.size();
  };
  const std::string_view all(text);
  const bool good = number(all.substr(0, dash), rule.first_layer) &&
                    number(dash == std::string::npos ? all : all.substr(dash + 1), rule.last_layer);
  if (!good || rule.first_layer > rule.last_layer || rule.last_layer >= layers)
    return bad(file,
               where + ": layers \"" + text + "\"; the model has 0-" + std::to_string(layers - 1));
  return {};
}

Result<void> read_rule(const YAML::Node& node, Component component, std::uint32_t layers,
                       std::string_view file, PackPolicy& policy) {
  const std::string where(kComponentNames[static_cast<std::size_t>(component)]);
  if (node.IsSequence()) {
    for (const auto& part : node) MOESAIC_CHECK(read_rule(part, component, layers, file, policy));
    return {};
  }
  PackPolicy::Rule rule{.component = component};
  if (node.IsMap()) {
    for (const auto& item : node) {
      const auto key = item.first.Scalar();
      if (key == "format") {
        MOESAIC_TRY(rule.format, read_format(item.second, file, where));
      } else if (key == "layers" && item.second.IsScalar()) {
        MOESAIC_CHECK(read_layers(item.second.Scalar(), layers, file, where, rule));
      } else {
        return bad(file, where + ": unknown key \"" + key + "\"");
      }
    }
    if (!node["format"]) return bad(file, where + ": no format");
  } else {
    MOESAIC_TRY(rule.format, read_format(node, file, where));
  }
  if (component == Component::kVision) {
    if (rule.format != WeightFormat::kBf16 && rule.format != WeightFormat::kW8r)
      return bad(file, "vision: format \"" + std::string(format_name(rule.format)) +
                           "\"; the tower takes bf16 or w8");
    if (node.IsMap() && node["layers"])
      return bad(file, "vision: layers are the decoder's; the tower has one format");
  }
  policy.add(rule);
  return {};
}

}  // namespace

PackPolicy PackPolicy::uniform(WeightFormat format) {
  PackPolicy policy;
  for (std::size_t c = 0; c < kComponentNames.size(); ++c) {
    const auto component = static_cast<Component>(c);
    policy.add({.component = component,
                .format = component == Component::kVision ? WeightFormat::kBf16 : format});
  }
  return policy;
}

WeightFormat PackPolicy::at(Component component, std::uint32_t layer) const {
  const auto rule = std::find_if(rules_.rbegin(), rules_.rend(), [&](const Rule& r) {
    return r.component == component && layer >= r.first_layer && layer <= r.last_layer;
  });
  return rule == rules_.rend() ? WeightFormat::kBf16 : rule->format;
}

bool PackPolicy::quantized() const {
  return std::any_of(rules_.begin(), rules_.end(), [](const Rule& rule) {
    return rule.component != Component::kVision && is_integer(rule.format);
  });
}

Result<PackPolicy> parse_policy(std::string_view yaml, std::uint32_t layers,
                                std::string_view file) try {
  const auto root = YAML::Load(std::string(yaml));
  if (!root.IsMap()) return bad(file, "no map of components");
  auto policy = PackPolicy::uniform(WeightFormat::kBf16);
  if (const auto format = root["default"]) {
    MOESAIC_TRY(const auto read, read_format(format, file, "default"));
    policy = PackPolicy::uniform(read);
  }
  for (const auto& item : root) {
    const auto key = item.first.Scalar();
    if (key == "default") continue;
    const auto* const known = std::find(kComponentNames.begin(), kComponentNames.end(), key);
    if (known == kComponentNames.end())
      return bad(file, "no component \"" + key + "\"; there are: " + joined(kComponentNames));
    const auto component = static_cast<Component>(known - kComponentNames.begin());
    MOESAIC_CHECK(read_rule(item.second, component, layers, file, policy));
  }
  return policy;
} catch (const YAML::Exception& e) {
  return bad(file, e.what());
}

Result<PackPolicy> load_policy(const std::filesystem::path& file, std::uint32_t layers) {
  constexpr std::size_t kMaxBytes = std::size_t{1} << 20;
  MOESAIC_TRY(const auto text, read_file(file, kMaxBytes));
  return parse_policy(text, layers, file.string());
}

}  // namespace moesaic
