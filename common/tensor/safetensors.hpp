#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/tensor/view.hpp"

namespace moesaic {

/// Limits of a header; far above what a checkpoint of the family needs (28B: 1.6 MB, 11,106
/// tensors).
inline constexpr std::size_t kMaxSafetensorsHeader = 16u << 20;  ///< bytes
inline constexpr std::size_t kMaxSafetensorsTensors = 100'000;
inline constexpr std::size_t kMaxSafetensorsName = 512;       ///< bytes
inline constexpr std::size_t kMaxSafetensorsMetadata = 1024;  ///< entries
inline constexpr std::size_t kMaxSafetensorsDims = 8;

/// One tensor of a file: where it lies and what it is. `data` points into the mapping.
struct StoredTensor {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
  std::size_t offset = 0;  ///< within the data section
};

/// A safetensors file, memory-mapped read-only. The whole header is validated before `open`
/// returns: length within the file and a cap, JSON depth, known types, non-negative dimensions
/// without overflow, offsets in the file, in order, without overlap or hole, bytes == product of
/// shape x element size, no name twice. Nothing is allocated from a number that was not checked
/// against the file size first; a hostile header costs less than 64 MiB. Thread-safe after `open`.
class SafetensorsFile {
 public:
  /// @errors kIo, kCorrupt, kUnsupported (element type); the text names file, tensor, found and
  /// expected
  [[nodiscard]] static Result<std::shared_ptr<const SafetensorsFile>> open(
      const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Null if there is none of that name.
  const StoredTensor* find(const std::string& name) const;
  /// Pages that were read stop counting as this process's memory; they come back when touched.
  void drop_pages() const;

 private:
  SafetensorsFile() = default;
  std::filesystem::path path_;
  const std::byte* map_ = nullptr;
  std::size_t map_bytes_ = 0;
  std::map<std::string, StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Validates a header alone and lists its tensors, `data` null (also the fuzz target).
/// @param header     the JSON text
/// @param data_bytes size of the data section that follows it
/// @param file       name for error texts
[[nodiscard]] Result<std::map<std::string, StoredTensor>> parse_safetensors_header(
    std::string_view header, std::size_t data_bytes, std::string_view file,
    std::map<std::string, std::string>* metadata = nullptr);

/// Reads all tensors of a (small) file into memory of their own.
[[nodiscard]] Result<std::map<std::string, Tensor>> read_safetensors(
    const std::filesystem::path& path);

/// Writes a file under a temporary name, then renames it. Data starts 64-byte aligned, wider types
/// first, so every tensor is aligned to its element size. For files too big for memory see
/// safetensors_writer.hpp.
[[nodiscard]] Result<void> write_safetensors(const std::filesystem::path& path,
                                             const std::map<std::string, Tensor>& tensors);

/// For error texts: `[32, 64]`.
std::string shape_text(std::span<const std::int64_t> shape);
/// For error texts: `BF16 [32, 64]`.
std::string describe(DType dtype, std::span<const std::int64_t> shape);

}  // namespace moesaic
