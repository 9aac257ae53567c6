#include "common/base/full_io.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

using testing::HasSubstr;

const std::string kContent = "0123456789abcdefghijklmnopqrstuvwxyz";
int calls = 0;
std::string written;

/// At most seven bytes of the content a call, and every second call is interrupted.
ssize_t short_read(int, void* out, std::size_t bytes, off_t offset) {
  if (++calls % 2 == 0) {
    errno = EINTR;
    return -1;
  }
  const auto at = static_cast<std::size_t>(offset);
  const auto n = std::min({bytes, std::size_t{7}, kContent.size() - std::min(at, kContent.size())});
  std::memcpy(out, kContent.data() + at, n);
  return static_cast<ssize_t>(n);
}

ssize_t broken_read(int, void*, std::size_t, off_t offset) {
  if (offset < 20) return 5;
  errno = EIO;
  return -1;
}

ssize_t short_write(int, const void* data, std::size_t bytes) {
  if (++calls % 2 == 0) {
    errno = EINTR;
    return -1;
  }
  const auto n = std::min(bytes, std::size_t{3});
  written.append(static_cast<const char*>(data), n);
  return static_cast<ssize_t>(n);
}

ssize_t full_disk(int, const void*, std::size_t bytes) {
  if (++calls < 3) return static_cast<ssize_t>(std::min(bytes, std::size_t{10}));
  errno = ENOSPC;
  return -1;
}

TEST(FullIoTest, ShortAndInterruptedReadsGoOn) {
  calls = 0;
  std::array<char, 30> out{};
  ASSERT_TRUE(read_fully(-1, out.data(), out.size(), 4, short_read));
  EXPECT_EQ(std::string(out.data(), out.size()), kContent.substr(4, 30));
  EXPECT_GT(calls, 8);
}

TEST(FullIoTest, AFileThatEndsIsCorruptAndABrokenDiskIsNot) {
  calls = 0;
  std::array<char, 30> out{};
  const auto early = read_fully(-1, out.data(), out.size(), 10, short_read);
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error().code, Errc::kCorrupt);
  EXPECT_EQ(early.error().what, "ends at byte 36, 40 expected");
  const auto broken = read_fully(-1, out.data(), out.size(), 0, broken_read);
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().code, Errc::kIo);
  EXPECT_EQ(broken.error().what, "Input/output error at byte 20");
}

TEST(FullIoTest, ShortAndInterruptedWritesGoOn) {
  calls = 0;
  written.clear();
  ASSERT_TRUE(write_fully(-1, kContent.data(), kContent.size(), short_write));
  EXPECT_EQ(written, kContent);
}

TEST(FullIoTest, AFullDiskSaysHowFarItWent) {
  calls = 0;
  const auto done = write_fully(-1, kContent.data(), kContent.size(), full_disk);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Errc::kIo);
  EXPECT_EQ(done.error().what, "No space left on device after 20 of 36 bytes");
}

TEST(FullIoTest, APublishedFileHasOneName) {
  const test::TempDir dir;
  const int fd = ::open((dir / "a.tmp").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  ASSERT_GE(fd, 0);
  ASSERT_TRUE(write_fully(fd, kContent.data(), kContent.size()));
  ASSERT_TRUE(publish_file(fd, dir / "a.tmp", dir / "a"));
  EXPECT_FALSE(std::filesystem::exists(dir / "a.tmp"));
  EXPECT_EQ(std::filesystem::file_size(dir / "a"), kContent.size());
  const auto gone = publish_file(fd, dir / "a.tmp", dir / "b");
  ::close(fd);
  ASSERT_FALSE(gone);
  EXPECT_THAT(gone.error().what, HasSubstr((dir / "b").string()));
}

}  // namespace
}  // namespace moesaic
