#include "services/all_in_one/bench/cold_load.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "common/base/aligned_buffer.hpp"

namespace moesaic {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPiece = std::size_t{4} << 20;
constexpr std::size_t kReaders = 4;  ///< enough to keep the devices seen so far busy

std::vector<fs::path> files_of(const fs::path& dir) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error))
    if (entry.is_regular_file(error)) files.push_back(entry.path());
  // Largest first: the small ones say little.
  std::sort(files.begin(), files.end(), [&](const auto& a, const auto& b) {
    return fs::file_size(a, error) > fs::file_size(b, error);
  });
  return files;
}

class File {
 public:
  File(const fs::path& path, int flags) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | flags)) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

void drop_from_cache(const fs::path& dir) {
  for (const auto& path : files_of(dir)) {
    const File file(path, 0);
    if (file.fd() < 0) continue;
    ::fdatasync(file.fd());
    ::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_DONTNEED);
  }
}

double direct_read_rate(const fs::path& dir, std::uint64_t bytes) {
  std::uint64_t read = 0;
  const auto begun = std::chrono::steady_clock::now();
  for (const auto& path : files_of(dir)) {
    std::error_code error;
    const auto size = std::min<std::uint64_t>(fs::file_size(path, error), bytes - read);
    const File file(path, O_DIRECT);
    if (file.fd() < 0) return 0;
    std::atomic<std::uint64_t> next{0}, done{0};
    const auto reader = [&] {
      const AlignedBuffer buffer(2 * kPiece);  // large enough to be aligned to pages
      for (;;) {
        const auto offset = next.fetch_add(kPiece);
        if (offset + kPiece > size) return;
        const auto got = ::pread(file.fd(), const_cast<std::byte*>(buffer.data()), kPiece,
                                 static_cast<off_t>(offset));
        if (got <= 0) return;
        done += static_cast<std::uint64_t>(got);
      }
    };
    {
      std::vector<std::jthread> readers;
      for (std::size_t i = 0; i < kReaders; ++i) readers.emplace_back(reader);
    }
    if (size >= kPiece && done == 0) return 0;
    read += done;
    if (read + kPiece > bytes) break;
  }
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begun;
  return static_cast<double>(read) / spent.count();
}

std::uint64_t file_bytes(const fs::path& dir) {
  std::uint64_t bytes = 0;
  std::error_code error;
  for (const auto& path : files_of(dir)) bytes += fs::file_size(path, error);
  return bytes;
}

std::uint64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string key; status >> key;) {
    std::uint64_t kib = 0;
    if (key == "VmHWM:" && status >> kib) return kib * 1024;
    status.ignore(256, '\n');
  }
  return 0;
}

}  // namespace moesaic
