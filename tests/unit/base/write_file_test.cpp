#include "common/base/write_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

std::string content_of(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(WriteFileTest, ReplacesWhatWasThereAndLeavesNothingBeside) {
  const test::TempDir dir;
  ASSERT_TRUE(write_file(dir / "a", "a longer text"));
  ASSERT_TRUE(write_file(dir / "a", "short"));
  EXPECT_EQ(content_of(dir / "a"), "short");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

TEST(WriteFileTest, NamesWhatItCannotWriteAndKeepsTheOldFile) {
  const test::TempDir dir;
  const auto missing = write_file(dir / "none" / "a", "text");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Errc::kIo);
  EXPECT_THAT(missing.error().what, testing::HasSubstr((dir / "none" / "a").string()));
  // A folder in the place of the file to be written beside it.
  ASSERT_TRUE(write_file(dir / "b", "old"));
  std::filesystem::create_directories(dir / "b.tmp" / "full");
  EXPECT_FALSE(write_file(dir / "b", "new"));
  EXPECT_EQ(content_of(dir / "b"), "old");
}

}  // namespace
}  // namespace moesaic
