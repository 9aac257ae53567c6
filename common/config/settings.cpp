#include "common/config/settings.hpp"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cassert>
#include <charconv>
#include <cstdlib>

#include "common/base/edit_distance.hpp"

namespace moesaic {
namespace {

std::string spelled(std::string_view key, char separator, bool upper) {
  std::string out;
  for (const char c : key) {
    if (c == '.' || c == '_') {
      out += separator;
    } else {
      out += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    }
  }
  return out;
}

Result<std::int64_t> to_integer(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    return fail(Errc::kInvalidArgument, "");
  return value;
}

bool is_choice(std::string_view choices, std::string_view value) {
  while (!choices.empty()) {
    const auto bar = std::min(choices.find('|'), choices.size());
    if (choices.substr(0, bar) == value) return true;
    choices.remove_prefix(std::min(bar + 1, choices.size()));
  }
  return false;
}

/// Nested mappings as dotted keys.
Result<void> flatten(
    const YAML::Node& node, const std::string& prefix, const std::string& file,
    const std::function<Result<void>(const std::string&, const std::string&)>& visit) {
  const auto where = [&](const YAML::Node& n) {
    return file + ":" + std::to_string(n.Mark().line + 1);
  };
  for (const auto& entry : node) {
    if (!entry.first.IsScalar())
      return fail(Errc::kCorrupt, where(entry.first) + ": a key must be a word");
    const auto key = prefix.empty() ? entry.first.Scalar() : prefix + "." + entry.first.Scalar();
    if (entry.second.IsMap()) {
      MOESAIC_CHECK(flatten(entry.second, key, file, visit));
    } else if (entry.second.IsScalar()) {
      if (auto done = visit(key, entry.second.Scalar()); !done)
        return fail(where(entry.second), done.error());
    } else {
      return fail(Errc::kCorrupt, where(entry.second) + ": " + key + " must be one value");
    }
  }
  return {};
}

}  // namespace

Settings::Settings(std::span<const SettingSpec> specs) : specs_(specs.begin(), specs.end()) {
  for (const auto& spec : specs)
    values_.emplace(spec.key, Value{std::string(spec.default_value), "default"});
}

std::string Settings::flag_name(std::string_view key) { return "--" + spelled(key, '-', false); }
std::string Settings::environment_name(std::string_view key) {
  return "MOESAIC_" + spelled(key, '_', true);
}

const SettingSpec* Settings::find(std::string_view key) const {
  const auto it =
      std::find_if(specs_.begin(), specs_.end(), [&](const auto& spec) { return spec.key == key; });
  return it == specs_.end() ? nullptr : &*it;
}

Result<void> Settings::set(std::string_view key, std::string_view value, std::string_view origin) {
  const auto* spec = find(key);
  if (spec == nullptr) {
    const auto closest =
        std::min_element(specs_.begin(), specs_.end(), [&](const auto& a, const auto& b) {
          return edit_distance(a.key, key) < edit_distance(b.key, key);
        });
    return fail(Errc::kInvalidArgument, "unknown key \"" + std::string(key) +
                                            "\", did you mean \"" + std::string(closest->key) +
                                            "\"?");
  }
  const auto name =
      std::string(key) + " \"" + std::string(value) + "\" (" + std::string(origin) + ")";
  if (spec->kind == SettingSpec::Kind::kInteger) {
    const auto number = to_integer(value);
    if (!number || *number < spec->min || *number > spec->max)
      return fail(Errc::kInvalidArgument, name + ": expected a whole number of " +
                                              std::to_string(spec->min) + " to " +
                                              std::to_string(spec->max));
  }
  if (spec->kind == SettingSpec::Kind::kChoice && !is_choice(spec->choices, value))
    return fail(Errc::kInvalidArgument, name + ": expected one of " + std::string(spec->choices));
  values_[std::string(key)] = {std::string(value), std::string(origin)};
  return {};
}

Result<void> Settings::load_file(const std::filesystem::path& path) {
  const auto file = path.string();
  YAML::Node root;
  try {
    root = YAML::LoadFile(file);
  } catch (const YAML::BadFile&) {
    return fail(Errc::kIo, file + ": cannot be read");
  } catch (const YAML::Exception& error) {
    return fail(Errc::kCorrupt, file + ":" + std::to_string(error.mark.line + 1) + ": not YAML");
  }
  if (root.IsNull()) return {};
  if (!root.IsMap()) return fail(Errc::kCorrupt, file + ": expected a mapping of keys");
  return flatten(root, "", file, [&](const std::string& key, const std::string& value) {
    return set(key, value, file);
  });
}

Result<void> Settings::load_environment() {
  for (const auto& spec : specs_) {
    const auto name = environment_name(spec.key);
    if (const char* value = std::getenv(name.c_str()); value != nullptr)
      MOESAIC_CHECK(set(spec.key, value, name));
  }
  return {};
}

const std::string& Settings::text(std::string_view key) const {
  const auto it = values_.find(key);
  assert(it != values_.end());
  return it->second.text;
}

std::vector<std::string> Settings::items(std::string_view key) const {
  std::vector<std::string> found;
  std::string_view rest = text(key);
  while (!rest.empty()) {
    const auto comma = std::min(rest.find(','), rest.size());
    auto item = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
    while (!item.empty() && item.back() == ' ') item.remove_suffix(1);
    if (!item.empty()) found.emplace_back(item);
  }
  return found;
}

std::int64_t Settings::integer(std::string_view key) const { return *to_integer(text(key)); }

const std::string& Settings::origin(std::string_view key) const {
  const auto it = values_.find(key);
  assert(it != values_.end());
  return it->second.origin;
}

}  // namespace moesaic
