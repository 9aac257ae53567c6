#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "common/base/result.hpp"

namespace moesaic {

/// Ways to the system, for tests that let them fail: as pread(2) and write(2).
using PreadCall = ssize_t (*)(int, void*, std::size_t, off_t);
using WriteCall = ssize_t (*)(int, const void*, std::size_t);

/// Reads exactly so many bytes: calls that were interrupted or gave less than asked for go on.
/// @errors kCorrupt: the file ends before; kIo. The text has the numbers, not the file's name
[[nodiscard]] Result<void> read_fully(int fd, void* out, std::size_t bytes, std::uint64_t offset,
                                      PreadCall call = ::pread);

/// Writes everything, the same way. @errors kIo, e.g. a full disk; the text says after how many
/// bytes
[[nodiscard]] Result<void> write_fully(int fd, const void* data, std::size_t bytes,
                                       WriteCall call = ::write);

/// Gives a file that was written under another name its own, so that either survives a crash: the
/// content is on the disk before the name is. @param fd of the file, still open @errors kIo
[[nodiscard]] Result<void> publish_file(int fd, const std::filesystem::path& written,
                                        const std::filesystem::path& path);

}  // namespace moesaic
