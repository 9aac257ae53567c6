#include "services/all_in_one/calibration/rows_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace moesaic {
namespace {

constexpr std::array<char, 8> kMagic = {'M', 'S', 'C', 'R', 'O', 'W', 'S', '1'};
constexpr std::size_t kKeyBytes = 96;

struct Header {
  std::array<char, 8> magic = kMagic;
  std::uint32_t byte_order = 0x01020304;
  std::uint32_t layer = 0;
  std::uint64_t values = 0;
  std::array<char, kKeyBytes> key{};
};

Header header_of(const std::string& key, std::uint32_t layer, std::size_t values) {
  Header header;
  header.layer = layer;
  header.values = values;
  std::memcpy(header.key.data(), key.data(), std::min(key.size(), kKeyBytes));
  return header;
}

bool write_all(int fd, const void* data, std::size_t bytes) {
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const auto put = ::write(fd, from, bytes);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    from += put;
    bytes -= static_cast<std::size_t>(put);
  }
  return true;
}

}  // namespace

Result<void> RowsFile::write(std::uint32_t layer, std::span<const float> rows) const {
  const auto beside = path_.string() + ".tmp";
  const int fd = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const auto header = header_of(key_, layer, rows.size());
  const bool good = fd >= 0 && write_all(fd, &header, sizeof header) &&
                    write_all(fd, rows.data(), rows.size_bytes()) && ::fsync(fd) == 0 &&
                    ::rename(beside.c_str(), path_.c_str()) == 0;
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (good) return {};
  ::unlink(beside.c_str());
  return fail(Errc::kIo, beside + ": " + std::to_string(rows.size_bytes()) +
                             " bytes: " + std::strerror(error));
}

Result<std::optional<std::uint32_t>> RowsFile::read(std::uint32_t layer,
                                                    std::span<float> rows) const {
  std::ifstream in(path_, std::ios::binary);
  Header found;
  if (!in || !in.read(reinterpret_cast<char*>(&found), sizeof found))
    return std::optional<std::uint32_t>();
  const auto wanted = header_of(key_, found.layer, rows.size());
  if (found.layer > layer || std::memcmp(&found, &wanted, sizeof found) != 0)
    return std::optional<std::uint32_t>();
  if (!in.read(reinterpret_cast<char*>(rows.data()),
               static_cast<std::streamsize>(rows.size_bytes())))
    return fail(Errc::kIo, path_.string() + ": ends early");
  return std::optional(found.layer);
}

void RowsFile::remove() const {
  ::unlink(path_.c_str());
  ::unlink((path_.string() + ".tmp").c_str());
}

}  // namespace moesaic
