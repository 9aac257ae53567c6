#include "services/all_in_one/eval/scratch_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>
#include <utility>

namespace moesaic {
namespace {

tl::unexpected<Error> failed(const std::string& what) {
  return fail(Errc::kIo, "temporary file: " + what + ": " + std::generic_category().message(errno));
}

std::string piece(std::size_t bytes, std::uint64_t offset) {
  return std::to_string(bytes) + " bytes at " + std::to_string(offset);
}

}  // namespace

Result<ScratchFile> ScratchFile::create(const std::filesystem::path& dir) {
  auto name = (dir / "moesaic-scratch-XXXXXX").string();
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) return failed(name);
  ::unlink(name.c_str());
  return ScratchFile(fd);
}

ScratchFile::ScratchFile(ScratchFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

ScratchFile& ScratchFile::operator=(ScratchFile&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(size_, other.size_);
  return *this;
}

ScratchFile::~ScratchFile() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::uint64_t> ScratchFile::append(std::span<const std::byte> bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const auto n =
        ::pwrite(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(size_ + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed("writing " + piece(bytes.size(), size_));
    done += static_cast<std::size_t>(n);
  }
  const auto offset = size_;
  size_ += bytes.size();
  return offset;
}

Result<void> ScratchFile::read(std::uint64_t offset, std::span<std::byte> out) const {
  if (offset > size_ || out.size() > size_ - offset)
    return fail(Errc::kNotFound,
                "temporary file: " + piece(out.size(), offset) + " of " + std::to_string(size_));
  for (std::size_t done = 0; done < out.size();) {
    const auto n =
        ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed("reading " + piece(out.size(), offset));
    done += static_cast<std::size_t>(n);
  }
  return {};
}

}  // namespace moesaic
