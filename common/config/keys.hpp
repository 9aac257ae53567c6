#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/config/settings.hpp"

namespace moesaic {

/// Every configuration key of every program, in one table; a program takes the sections it needs.
std::span<const SettingSpec> all_keys();

/// The keys of these sections ("http", "model"), and single keys ("engine.threads"), in the table's
/// order.
/// @param defaults other defaults than the table's, by key
std::vector<SettingSpec> select_keys(
    std::initializer_list<std::string_view> wanted,
    std::initializer_list<std::pair<std::string_view, std::string_view>> defaults = {});

/// What clients call the model: model.name, else the name of its directory.
std::string model_name(const Settings& settings, const std::string& directory);

/// These keys with their defaults as a YAML file that `Settings::load_file` reads, each with its
/// help as a comment.
std::string keys_as_yaml(std::span<const SettingSpec> keys, std::string_view program);

}  // namespace moesaic
