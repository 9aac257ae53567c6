#include "common/tensor/safetensors.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "common/tensor/safetensors_writer.hpp"

namespace moesaic {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr std::size_t kPrefix = 8;  // the header's length

std::string system_text() { return std::generic_category().message(errno); }

struct FileDescriptor {
  int fd = -1;
  ~FileDescriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

SafetensorsFile::~SafetensorsFile() {
  if (map_ != nullptr) ::munmap(const_cast<std::byte*>(map_), map_bytes_);
}

void SafetensorsFile::drop_pages() const {
  ::madvise(const_cast<std::byte*>(map_), map_bytes_, MADV_DONTNEED);
}

Result<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::open(
    const std::filesystem::path& path) {
  const auto name = path.string();
  // Non-blocking: a pipe of that name must not hang the caller.
  const FileDescriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0)
    return fail(errno == ENOENT ? Errc::kNotFound : Errc::kIo, name + ": " + system_text());
  struct stat info {};
  if (::fstat(file.fd, &info) != 0) return fail(Errc::kIo, name + ": " + system_text());
  if (!S_ISREG(info.st_mode)) return fail(Errc::kIo, name + ": not a regular file");
  const auto bytes = static_cast<std::size_t>(info.st_size);
  if (bytes < kPrefix)
    return fail(Errc::kCorrupt, name + ": " + std::to_string(bytes) +
                                    " bytes found, expected at least the 8 of a header length");

  std::shared_ptr<SafetensorsFile> result(new SafetensorsFile);
  void* map = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED, file.fd, 0);
  if (map == MAP_FAILED) return fail(Errc::kIo, name + ": mmap: " + system_text());
  result->path_ = path;
  result->map_ = static_cast<const std::byte*>(map);
  result->map_bytes_ = bytes;

  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, map, kPrefix);
  if (header_bytes > bytes - kPrefix || header_bytes > kMaxSafetensorsHeader)
    return fail(
        Errc::kCorrupt,
        name + ": header of " + std::to_string(header_bytes) + " bytes found, expected at most " +
            std::to_string(std::min(bytes - kPrefix, kMaxSafetensorsHeader)) +
            (bytes - kPrefix < kMaxSafetensorsHeader ? ", the rest of the file" : ", the limit"));
  const std::string_view header(reinterpret_cast<const char*>(result->map_) + kPrefix,
                                header_bytes);
  const auto data_at = kPrefix + header_bytes;
  MOESAIC_TRY(result->tensors_,
              parse_safetensors_header(header, bytes - data_at, name, &result->metadata_));
  for (auto& [_, tensor] : result->tensors_) tensor.data = result->map_ + data_at + tensor.offset;
  return std::shared_ptr<const SafetensorsFile>(std::move(result));
}

const StoredTensor* SafetensorsFile::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

Result<std::map<std::string, Tensor>> read_safetensors(const std::filesystem::path& path) try {
  MOESAIC_TRY(const auto file, SafetensorsFile::open(path));
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, stored] : file->tensors()) {
    Tensor tensor(stored.dtype, stored.shape);
    if (stored.bytes > 0) std::memcpy(tensor.bytes.data(), stored.data, stored.bytes);
    tensors.emplace_hint(tensors.end(), name, std::move(tensor));
  }
  return tensors;
} catch (const std::bad_alloc&) {
  return fail(Errc::kTooLarge, path.string() + ": not enough memory to read it whole");
}

Result<void> write_safetensors(const std::filesystem::path& path,
                               const std::map<std::string, Tensor>& tensors) {
  std::vector<TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) specs.push_back({name, tensor.dtype, tensor.shape});
  std::ranges::stable_sort(specs, std::ranges::greater{},
                           [](const TensorSpec& s) { return dtype_bytes(s.dtype); });
  MOESAIC_TRY(auto writer, SafetensorsWriter::create(path, specs));
  for (const auto& spec : specs) {
    const auto& tensor = tensors.at(spec.name);
    MOESAIC_CHECK(
        writer.append({tensor.bytes.data(), tensor.elements() * dtype_bytes(tensor.dtype)}));
  }
  return writer.finish();
}

}  // namespace moesaic
