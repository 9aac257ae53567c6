#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace moesaic {

/// 16 hexadecimal digits that are equal where the same weights are served in the same precision:
/// over config.json, and name, size, first and last 64 KiB of each safetensors file, and `compute`;
/// of a pack over its manifest. Empty if the directory has no weights (a gateway's): such a process
/// serves with any.
/// @errors kIo: a file cannot be read
[[nodiscard]] Result<std::string> model_fingerprint(const std::filesystem::path& directory,
                                                    std::string_view compute);

}  // namespace moesaic
