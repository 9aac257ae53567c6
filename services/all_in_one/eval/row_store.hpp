#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "common/base/result.hpp"

namespace moesaic {

/// Rows of floats in a temporary file without a name: too many for memory (a vocabulary per token
/// of every answer), needed once more, and gone with the process. One thread.
class RowStore {
 public:
  /// @param dir   where the file is made: a disk, rather than memory
  /// @param width floats in a row
  /// @errors kIo
  [[nodiscard]] static Result<RowStore> create(const std::filesystem::path& dir, std::size_t width);
  RowStore(RowStore&& other) noexcept;
  RowStore& operator=(RowStore&& other) noexcept;
  ~RowStore();

  /// @errors kIo: the disk is full, ...; kShapeMismatch
  [[nodiscard]] Result<void> append(std::span<const float> row);
  /// @errors kIo; kNotFound: no such row
  [[nodiscard]] Result<void> read(std::size_t row, std::span<float> out) const;
  std::size_t rows() const { return rows_; }
  std::size_t width() const { return width_; }

 private:
  RowStore(int fd, std::size_t width) : fd_(fd), width_(width) {}

  int fd_ = -1;
  std::size_t width_ = 0;
  std::size_t rows_ = 0;
};

}  // namespace moesaic
