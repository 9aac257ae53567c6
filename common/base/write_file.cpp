#include "common/base/write_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/base/full_io.hpp"

namespace moesaic {

Result<void> write_file(const std::filesystem::path& path, std::string_view content) {
  auto beside = path;
  beside += ".tmp";
  const int fd = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0)
    return fail(Errc::kIo, path.string() + ": cannot be written: " + std::strerror(errno));
  auto done = write_fully(fd, content.data(), content.size());
  if (done) done = publish_file(fd, beside, path);
  ::close(fd);
  if (done) return {};
  ::unlink(beside.c_str());
  return fail(Errc::kIo, path.string() + ": cannot be written: " + done.error().what);
}

}  // namespace moesaic
