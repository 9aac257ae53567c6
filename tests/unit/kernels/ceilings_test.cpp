#include "common/kernels/ceilings.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace moesaic {
namespace {

/// The peak of avx2 is twice the scalar one at least, those of wider levels `wider` times avx2's.
void expect_peaks(Compute compute, double wider) {
  ThreadPool pool(1);
  double scalar = 0, avx2 = 0;
  for (const auto isa : available_isas()) {
    const double peak = measure_peak_gops(isa, compute, pool);
    EXPECT_TRUE(std::isfinite(peak));
    if (isa == Isa::kScalar) scalar = peak;
    if (isa == Isa::kAvx2) {
      avx2 = peak;
      EXPECT_GT(avx2, 2 * scalar);
    }
    if (isa >= Isa::kAvx512) {
      EXPECT_GT(peak, wider * avx2) << isa_name(isa);
    }
  }
}

TEST(CeilingsTest, VectorPeaksAreHigherAndWiderOnesNoLower) {
  // Some CPUs (Zen 4) do 512 bits in two halves: as fast as 256, within the noise.
  expect_peaks(Compute::kF32, 0.8);
}

TEST(CeilingsTest, IntegerPeaksGrowWithTheLanes) { expect_peaks(Compute::kInt, 2); }

TEST(CeilingsTest, TilesDoFarMoreThanVectors) {
  if (available_isas().back() != Isa::kAmx) GTEST_SKIP() << "this CPU has no such level";
  ThreadPool pool(1);
  for (const auto compute : {Compute::kInt, Compute::kBf16})
    EXPECT_GT(measure_peak_gops(Isa::kAmx, compute, pool),
              2 * measure_peak_gops(Isa::kAvx512, compute, pool));
}

TEST(CeilingsTest, ReadBandwidthIsPositiveAndFinite) {
  ThreadPool pool(2);
  const double gbs = measure_read_gbs(pool, std::size_t{32} << 20);
  EXPECT_GT(gbs, 0);
  EXPECT_TRUE(std::isfinite(gbs));
}

TEST(PassTimerTest, TimesWhatItRan) {
  ThreadPool pool(2);
  PassTimer timer(pool);
  bool ran = false;
  EXPECT_GT(timer.time([&] { ran = true; }), 0);
  EXPECT_TRUE(ran);
  EXPECT_GE(timer.cpu_seconds(), 0);
}

}  // namespace
}  // namespace moesaic
