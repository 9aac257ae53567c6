#pragma once

#include <filesystem>
#include <string_view>

#include "common/base/result.hpp"

namespace moesaic {

/// Makes the file anew with this content: readers see the old one or all of the new one, after a
/// crash, too.
///
/// @errors kIo; the old file is left as it was
[[nodiscard]] Result<void> write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace moesaic
