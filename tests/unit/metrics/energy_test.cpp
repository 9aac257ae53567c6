#include "common/metrics/energy.hpp"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.hpp"

namespace moesaic::metrics {
namespace {

void write(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file) << text << '\n';
}

TEST(EnergyMeterTest, SumsPackagesAndLeavesTheirPartsOut) {
  const test::TempDir folder;
  for (const char* name : {"intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0", "dtpm"}) {
    write(folder / name / "energy_uj", "1000000");
    write(folder / name / "max_energy_range_uj", "9000000");
  }
  EnergyMeter meter(folder.path());
  ASSERT_TRUE(meter.readable());
  EXPECT_EQ(meter.joules(), 0);
  write(folder / "intel-rapl:0" / "energy_uj", "3500000");
  write(folder / "intel-rapl:1" / "energy_uj", "2000000");
  write(folder / "intel-rapl:0:0" / "energy_uj", "7000000");
  EXPECT_DOUBLE_EQ(meter.joules(), 2.5 + 1.0);
}

TEST(EnergyMeterTest, ACounterThatWrapsGoesOn) {
  const test::TempDir folder;
  write(folder / "intel-rapl:0" / "energy_uj", "8000000");
  write(folder / "intel-rapl:0" / "max_energy_range_uj", "9000000");
  EnergyMeter meter(folder.path());
  write(folder / "intel-rapl:0" / "energy_uj", "500000");
  EXPECT_DOUBLE_EQ(meter.joules(), 1.0 + 0.5);
}

TEST(EnergyMeterTest, NothingToReadIsNoError) {
  const test::TempDir folder;
  EXPECT_FALSE(EnergyMeter(folder.path()).readable());
  EXPECT_FALSE(EnergyMeter(folder / "missing").readable());
}

}  // namespace
}  // namespace moesaic::metrics
