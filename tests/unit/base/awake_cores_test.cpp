#include "common/base/awake_cores.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

namespace moesaic {
namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

double cpu_ms(int who) {
  rusage usage{};
  ::getrusage(who, &usage);
  const auto ms = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_usec) * 1e-3;
  };
  return ms(usage.ru_utime) + ms(usage.ru_stime);
}

/// CPU time of all threads but this one.
double others_ms() { return cpu_ms(RUSAGE_SELF) - cpu_ms(RUSAGE_THREAD); }

TEST(AwakeCoresTest, CoresRunWhileHeldAndRestAfterwards) {
  AwakeCores cores;
  const double before = others_ms();
  // Renewed as steps of an engine do; how much of a busy machine is left for us nobody knows.
  for (const auto end = Clock::now() + 10s; others_ms() < before + 20 && Clock::now() < end;) {
    cores.hold();
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_GE(others_ms(), before + 20);
  std::this_thread::sleep_for(2 * AwakeCores::kHold);
  const double held = others_ms();
  std::this_thread::sleep_for(200ms);
  EXPECT_LT(others_ms(), held + 2) << "they sleep when nobody holds them";
}

TEST(AwakeCoresTest, EndsWhileHeld) {
  const auto begun = Clock::now();
  for (int i = 0; i < 20; ++i) {
    AwakeCores cores;
    cores.hold();
  }
  EXPECT_LT(Clock::now() - begun, 5s);
}

}  // namespace
}  // namespace moesaic
