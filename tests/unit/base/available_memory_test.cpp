#include "common/base/available_memory.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kKiB = 1024;

class AvailableMemoryTest : public testing::Test {
 protected:
  void put(const fs::path& path, const std::string& text) {
    fs::create_directories((temp_.path() / path).parent_path());
    std::ofstream(temp_.path() / path) << text;
  }
  void SetUp() override {
    put("proc/meminfo",
        "MemTotal:       24000 kB\nMemFree:  1000 kB\nMemAvailable:   20000 kB\n"
        "HugePages_Total:       0\nDirectMap4k:  90 kB\n");
    put("proc/self/cgroup", "0::/pod/server\n");
  }
  MachineMemory read() const { return machine_memory(temp_.path()); }

  test::TempDir temp_;
};

TEST_F(AvailableMemoryTest, IsWhatTheSystemSaysWithoutALimit) {
  const auto memory = read();
  EXPECT_EQ(memory.total, 24000 * kKiB);
  EXPECT_EQ(memory.available, 20000 * kKiB);
}

TEST_F(AvailableMemoryTest, ALimitOfTheGroupOrOneAboveItBinds) {
  put("sys/fs/cgroup/pod/server/memory.max", "max\n");
  EXPECT_EQ(read().available, 20000 * kKiB);
  put("sys/fs/cgroup/pod/memory.max", std::to_string(8000 * kKiB));
  put("sys/fs/cgroup/pod/memory.current", std::to_string(5000 * kKiB));
  put("sys/fs/cgroup/pod/memory.stat", "anon 1\nfile " + std::to_string(3000 * kKiB) + "\n");
  EXPECT_EQ(read().total, 8000 * kKiB);
  EXPECT_EQ(read().available, 6000 * kKiB) << "the group's page cache can be given up";
  put("sys/fs/cgroup/pod/server/memory.max", std::to_string(4000 * kKiB));
  EXPECT_EQ(read().available, 4000 * kKiB) << "nothing used so far";
}

TEST_F(AvailableMemoryTest, ALimitThatIsUsedUpLeavesNothing) {
  put("sys/fs/cgroup/pod/server/memory.max", "1000");
  put("sys/fs/cgroup/pod/server/memory.current", "2000");
  EXPECT_EQ(read().available, 0U);
}

TEST(AvailableMemoryOfThisMachineTest, IsSomeOfTheTotal) {
  const auto memory = machine_memory();
  EXPECT_GT(memory.available, 0U);
  EXPECT_LE(memory.available, memory.total);
}

}  // namespace
}  // namespace moesaic
