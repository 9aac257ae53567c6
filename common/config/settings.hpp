#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"

namespace moesaic {

/// One configuration key: `a.b_c` in YAML, `--a-b-c` as a flag, MOESAIC_A_B_C in the environment.
struct SettingSpec {
  enum class Kind : std::uint8_t { kText, kInteger, kChoice };
  std::string_view key;
  Kind kind = Kind::kText;
  std::string_view default_value;
  std::string_view help;          ///< what it does, with the unit
  std::int64_t min = 0, max = 0;  ///< of an integer, inclusive
  std::string_view choices;       ///< of a choice, separated by '|'
};

/// Values of all keys of a process: defaults, then a YAML file, then the environment, then flags;
/// later ones win. Every value is checked where it enters; an unknown key is an error that names
/// the closest known one. Not thread-safe; read once at start.
class Settings {
 public:
  explicit Settings(std::span<const SettingSpec> specs);  ///< copies

  /// @errors kIo, kCorrupt (not YAML, line), kInvalidArgument (unknown key, bad value); the text
  /// names file, key, found and expected
  [[nodiscard]] Result<void> load_file(const std::filesystem::path& path);
  [[nodiscard]] Result<void> load_environment();
  /// @param origin for error texts and `origin()`: a file, "environment", "flag"
  [[nodiscard]] Result<void> set(std::string_view key, std::string_view value,
                                 std::string_view origin);

  const std::string& text(std::string_view key) const;
  std::int64_t integer(std::string_view key) const;
  /// True if this program has that key.
  bool has(std::string_view key) const { return find(key) != nullptr; }
  /// Of a choice between yes and no.
  bool yes(std::string_view key) const { return text(key) == "yes"; }
  /// Comma-separated items without the blanks around them; no empty ones.
  std::vector<std::string> items(std::string_view key) const;
  const std::string& origin(std::string_view key) const;
  std::span<const SettingSpec> specs() const { return specs_; }

  static std::string flag_name(std::string_view key);         ///< "--http-port"
  static std::string environment_name(std::string_view key);  ///< "MOESAIC_HTTP_PORT"

 private:
  struct Value {
    std::string text;
    std::string origin;
  };
  const SettingSpec* find(std::string_view key) const;

  std::vector<SettingSpec> specs_;
  std::map<std::string, Value, std::less<>> values_;
};

}  // namespace moesaic
