#include "services/all_in_one/eval/row_store.hpp"

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

}  // namespace

Result<RowStore> RowStore::create(const std::filesystem::path& dir, std::size_t width) {
  auto name = (dir / "moesaic-rows-XXXXXX").string();
  const int fd = ::mkostemp(name.data(), O_CLOEXEC);
  if (fd < 0) return failed(name);
  ::unlink(name.c_str());
  return RowStore(fd, width);
}

RowStore::RowStore(RowStore&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), width_(other.width_), rows_(other.rows_) {}

RowStore& RowStore::operator=(RowStore&& other) noexcept {
  std::swap(fd_, other.fd_);
  width_ = other.width_;
  rows_ = other.rows_;
  return *this;
}

RowStore::~RowStore() {
  if (fd_ >= 0) ::close(fd_);
}

Result<void> RowStore::append(std::span<const float> row) {
  if (row.size() != width_)
    return fail(Errc::kShapeMismatch, "temporary file: a row of " + std::to_string(row.size()) +
                                          " values, " + std::to_string(width_) + " expected");
  const auto bytes = std::as_bytes(row);
  for (std::size_t done = 0; done < bytes.size();) {
    const auto n = ::pwrite(fd_, bytes.data() + done, bytes.size() - done,
                            static_cast<off_t>(rows_ * bytes.size() + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed("row " + std::to_string(rows_));
    done += static_cast<std::size_t>(n);
  }
  ++rows_;
  return {};
}

Result<void> RowStore::read(std::size_t row, std::span<float> out) const {
  if (row >= rows_ || out.size() != width_)
    return fail(Errc::kNotFound,
                "temporary file: row " + std::to_string(row) + " of " + std::to_string(rows_));
  const auto bytes = std::as_writable_bytes(out);
  for (std::size_t done = 0; done < bytes.size();) {
    const auto n = ::pread(fd_, bytes.data() + done, bytes.size() - done,
                           static_cast<off_t>(row * bytes.size() + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return failed("row " + std::to_string(row));
    done += static_cast<std::size_t>(n);
  }
  return {};
}

}  // namespace moesaic
