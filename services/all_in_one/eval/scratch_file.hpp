#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "common/base/result.hpp"

namespace moesaic {

/// Bytes in a temporary file without a name: too many for memory, needed again, and gone with the
/// process. One thread.
class ScratchFile {
 public:
  /// @param dir where the file is made: a disk, rather than memory
  /// @errors kIo
  [[nodiscard]] static Result<ScratchFile> create(const std::filesystem::path& dir);
  ScratchFile(ScratchFile&& other) noexcept;
  ScratchFile& operator=(ScratchFile&& other) noexcept;
  ~ScratchFile();

  /// Writes at the end.
  /// @return where that was: pieces lie one behind the other
  /// @errors kIo: the disk is full, ...
  [[nodiscard]] Result<std::uint64_t> append(std::span<const std::byte> bytes);
  /// @errors kIo; kNotFound: beyond the end
  [[nodiscard]] Result<void> read(std::uint64_t offset, std::span<std::byte> out) const;
  std::uint64_t size() const { return size_; }

 private:
  explicit ScratchFile(int fd) : fd_(fd) {}

  int fd_ = -1;
  std::uint64_t size_ = 0;
};

}  // namespace moesaic
