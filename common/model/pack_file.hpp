#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/base/thread_pool.hpp"
#include "common/kernels/packed_matrix.hpp"
#include "common/model/pack_warmer.hpp"

namespace moesaic {

inline constexpr std::uint32_t kPackVersion = 1;
inline constexpr std::size_t kPackAlign = 4096;

/// One tensor of a pack file: a matrix in kernel layout, or f32 values.
struct PackEntry {
  std::string name;
  std::optional<WeightFormat> format;  ///< none: f32 values, rows 1
  std::uint64_t rows = 0;              ///< as PackedMatrix::rows
  std::uint64_t cols = 0;
  bool gate_up = false;
  std::uint64_t offset = 0;  ///< a multiple of kPackAlign
  std::uint64_t bytes = 0;
  std::string sha256;
};

/// Writes one pack file: a header of 4096 bytes (`MSCPACK1`, version, byte-order mark, where the
/// index is and its SHA-256), tensors at multiples of 4096, the index. The file has its name only
/// when it is complete; until then it is called `<path>.tmp`. One thread.
class PackFileWriter {
 public:
  [[nodiscard]] static Result<PackFileWriter> create(const std::filesystem::path& path);
  /// Goes on where `suspend` was called; what was added after that is gone.
  /// @param state what `suspend` returned
  /// @errors kNotFound, kCorrupt: the unfinished file is not there or too short, or that is no
  /// state
  [[nodiscard]] static Result<PackFileWriter> resume(const std::filesystem::path& path,
                                                     std::string_view state);
  PackFileWriter(PackFileWriter&& other) noexcept;
  PackFileWriter& operator=(PackFileWriter&&) = delete;
  /// Removes what was not finished, unless it was suspended once.
  ~PackFileWriter();

  /// @errors kIo: e.g. a full disk; the text has path and bytes written
  [[nodiscard]] Result<void> add(const std::string& name, const PackedMatrix& w);
  [[nodiscard]] Result<void> add(const std::string& name, std::span<const float> values);
  /// Everything so far reaches the disk. More may be added.
  /// @return a line of text for `resume`
  [[nodiscard]] Result<std::string> suspend();
  /// Index, header, fsync, rename. @return SHA-256 of the index
  [[nodiscard]] Result<std::string> finish();

 private:
  PackFileWriter(std::filesystem::path path, int fd);
  Result<void> append(PackEntry entry, const void* data);
  Result<void> write(const void* data, std::size_t bytes);
  Result<void> pad();

  std::filesystem::path path_, beside_;
  int fd_ = -1;
  bool keep_ = false;
  std::uint64_t at_ = 0;
  std::vector<PackEntry> entries_;
};

/// Bytes ready so far, of how many, and what comes.
using PackProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// A pack file mapped for reading. Header and index are checked when it is opened: version, sizes,
/// offsets, the index's own hash; tensors when asked (`verify`). Immutable, thread-safe.
class PackFile : public std::enable_shared_from_this<PackFile> {
 public:
  /// @errors kNotFound, kCorrupt (damaged, truncated, another byte order), kUnsupported (another
  /// version); the text names file, tensor and numbers
  [[nodiscard]] static Result<std::shared_ptr<const PackFile>> open(
      const std::filesystem::path& path);
  ~PackFile();
  PackFile(const PackFile&) = delete;
  PackFile& operator=(const PackFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::string& index_sha256() const { return index_sha256_; }
  const std::vector<PackEntry>& entries() const { return entries_; }
  /// Null: no such tensor.
  const PackEntry* find(const std::string& name) const;

  /// The matrix of that name, its memory in the mapping.
  /// @errors kNotFound; kShapeMismatch: other sizes than asked for
  [[nodiscard]] Result<PackedMatrix> matrix(const std::string& name, std::uint64_t rows,
                                            std::uint64_t cols, bool gate_up) const;
  [[nodiscard]] Result<AlignedVector<float>> values(const std::string& name,
                                                    std::uint64_t count) const;

  /// Reads and maps the given tensors, in large pieces, by all threads of the pool, so that no
  /// request waits for the disk.
  /// @param entries in file order
  /// @param warmer  null, or who touches the pages afterwards
  /// @errors kIo: the disk fails, or the file has been cut since it was opened
  [[nodiscard]] Result<void> populate(std::span<const PackEntry* const> entries, ThreadPool& pool,
                                      PackWarmer* warmer, const PackProgress& progress) const;
  /// Compares a tensor with its SHA-256. @errors kCorrupt
  [[nodiscard]] Result<void> verify(const PackEntry& entry) const;

 private:
  PackFile() = default;
  Result<void> read_index();

  std::filesystem::path path_;
  int fd_ = -1;
  std::uint64_t bytes_ = 0;
  std::byte* data_ = nullptr;  // 2 MiB aligned
  std::string index_sha256_;
  std::vector<PackEntry> entries_;
  std::map<std::string, std::size_t> by_name_;
};

}  // namespace moesaic
