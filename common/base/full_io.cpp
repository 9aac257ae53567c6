#include "common/base/full_io.hpp"

#include <fcntl.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

namespace moesaic {
namespace {

std::string system_error() { return std::strerror(errno); }

}  // namespace

Result<void> read_fully(int fd, void* out, std::size_t bytes, std::uint64_t offset,
                        PreadCall call) {
  auto* at = static_cast<char*>(out);
  std::size_t done = 0;
  while (done < bytes) {
    const auto got = call(fd, at + done, bytes - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return fail(Errc::kIo, system_error() + " at byte " + std::to_string(offset + done));
    if (got == 0)
      return fail(Errc::kCorrupt, "ends at byte " + std::to_string(offset + done) + ", " +
                                      std::to_string(offset + bytes) + " expected");
    done += static_cast<std::size_t>(got);
  }
  return {};
}

Result<void> write_fully(int fd, const void* data, std::size_t bytes, WriteCall call) {
  const auto* from = static_cast<const char*>(data);
  std::size_t done = 0;
  while (done < bytes) {
    const auto put = call(fd, from + done, bytes - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0)
      return fail(Errc::kIo, system_error() + " after " + std::to_string(done) + " of " +
                                 std::to_string(bytes) + " bytes");
    done += static_cast<std::size_t>(put);
  }
  return {};
}

Result<void> publish_file(int fd, const std::filesystem::path& written,
                          const std::filesystem::path& path) {
  if (::fsync(fd) != 0 || std::rename(written.c_str(), path.c_str()) != 0)
    return fail(Errc::kIo, path.string() + ": " + system_error());
  // The name, too, must survive a crash.
  const auto folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  const int dir = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir >= 0) {
    ::fsync(dir);
    ::close(dir);
  }
  return {};
}

}  // namespace moesaic
