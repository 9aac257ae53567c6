#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "common/base/result.hpp"

namespace moesaic {

/// What entered a decoder layer, on disk, so that an interrupted calibration goes on there.
class RowsFile {
 public:
  /// @param key names model, data and settings: rows of another key are not found
  RowsFile(std::filesystem::path path, std::string key)
      : path_(std::move(path)), key_(std::move(key)) {}

  /// Written beside, synced, then renamed: the file before stays until this one is whole.
  /// @errors kIo: a full disk, ...
  [[nodiscard]] Result<void> write(std::uint32_t layer, std::span<const float> rows) const;

  /// Reads the rows if they are of this key, as many, and entered a layer up to `layer`.
  /// @return the layer; none: no such file
  /// @errors kIo
  [[nodiscard]] Result<std::optional<std::uint32_t>> read(std::uint32_t layer,
                                                          std::span<float> rows) const;
  void remove() const;

 private:
  std::filesystem::path path_;
  std::string key_;
};

}  // namespace moesaic
