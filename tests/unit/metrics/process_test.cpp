#include "common/metrics/process.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <vector>

#include "common/metrics/metrics.hpp"

namespace moesaic::metrics {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

TEST(ProcessTest, TellsOfThisProcess) {
  collect_process("node-a", "9.9.9");
  std::vector<char> held(64 << 20, 'x');
  const auto text = expose();
  EXPECT_THAT(text, ::testing::HasSubstr("moesaic_process_info{version=\"9.9.9\"} 1\n"));
  EXPECT_GE(gauge("moesaic_process_resident_memory_bytes").value(), held.size());
  EXPECT_GE(gauge("moesaic_process_open_fds").value(), 3);
  EXPECT_GT(counter("moesaic_process_cpu_seconds_total").value(), 0);
  const auto start = gauge("moesaic_process_start_time_seconds").value();
  EXPECT_LT(start, now() + 2);  // the kernel keeps the boot time in whole seconds
  EXPECT_GT(start, now() - 600);
}

TEST(ProcessTest, ProcessorTimeGrowsAsItIsUsed) {
  collect_process("node-a", "9.9.9");
  expose();
  const auto before = counter("moesaic_process_cpu_seconds_total").value();
  volatile double sink = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(50);
  while (std::chrono::steady_clock::now() < end) sink = sink + 1;
  expose();
  EXPECT_GT(counter("moesaic_process_cpu_seconds_total").value(), before);
}

}  // namespace
}  // namespace moesaic::metrics
