#pragma once

#include <cstdint>
#include <filesystem>

#include "common/base/result.hpp"

namespace moesaic {

/// Asks the system to drop the files of a directory from its page cache, so that the next reader
/// gets them from the disk. Files that somebody has mapped stay.
void drop_from_cache(const std::filesystem::path& dir);

/// Bytes a second of reading up to `bytes` of the files of a directory past the page cache, in
/// several requests side by side: what loading is compared with. 0 if the file system cannot do
/// it.
double direct_read_rate(const std::filesystem::path& dir, std::uint64_t bytes);

/// Bytes of all regular files of a directory.
std::uint64_t file_bytes(const std::filesystem::path& dir);

/// Most memory this process has had resident so far, mapped files included; bytes.
std::uint64_t peak_resident_bytes();

}  // namespace moesaic
