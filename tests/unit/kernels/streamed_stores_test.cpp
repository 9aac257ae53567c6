#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/cpu/linear_level.hpp"
#include "common/kernels/linear.hpp"
#include "tests/support/integer_matrix.hpp"
#include "tests/unit/kernels/linear_fixture.hpp"

namespace moesaic {
namespace {

// Large results in whole cache lines are stored past the caches. The same product with rows that
// begin elsewhere is not: both must give the same bits.

using test::random_integer_matrix;

constexpr std::size_t kRows = 2200, kCols = 64;

/// Room for kRows rows, which begin on a cache line or beside it.
class Results {
 public:
  Results(std::size_t row_bytes, bool aligned) : row_bytes_(row_bytes), from_(aligned ? 0 : 4) {}

  std::byte* data() { return memory_.data() + from_; }
  std::byte* row(std::size_t r) { return data() + r * row_bytes_; }

 private:
  std::size_t row_bytes_, from_;
  AlignedBuffer memory_{kRows * row_bytes_ + 64};
};

class StreamedStoresTest : public testing::TestWithParam<Isa> {
 protected:
  /// run(results) twice, and compares what it has written.
  template <class Run>
  void expect_same_bits(std::size_t row_bytes, Run run) {
    ASSERT_GT(kRows * row_bytes, cpu::kStreamBytes);
    Results streamed(row_bytes, true), plain(row_bytes, false);
    ASSERT_TRUE(cpu::whole_lines(streamed.data(), row_bytes));
    ASSERT_FALSE(cpu::whole_lines(plain.data(), row_bytes));
    run(streamed);
    run(plain);
    EXPECT_EQ(std::memcmp(streamed.data(), plain.data(), kRows * row_bytes), 0);
  }

  ForcedIsa forced_{GetParam()};
  ThreadPool pool_{2};
  Values x_{kRows, kCols, 5, false};
};

TEST_P(StreamedStoresTest, LargeSumsHaveTheBitsOfOthers) {
  constexpr std::size_t kOutputs = 1024;
  const std::vector<float> bias(kOutputs, 0.25F);
  const Values weights(kOutputs, kCols, 6, false);
  const auto bf16 = pack_matrix(weights.view(DType::kBf16, kOutputs), Compute::kBf16);
  const auto w4 = random_integer_matrix(WeightFormat::kW4r, kOutputs, kCols, 7);
  for (const auto* w : {&bf16, &w4})
    for (const float* b : {static_cast<const float*>(nullptr), bias.data()}) {
      SCOPED_TRACE(std::string(format_name(w->format)) + (b == nullptr ? "" : ", bias"));
      expect_same_bits(kOutputs * sizeof(float), [&](Results& y) {
        linear(*w, x_.operand(Compute::kBf16, 0, kRows), reinterpret_cast<float*>(y.data()),
               kOutputs, b, pool_);
      });
    }
}

TEST_P(StreamedStoresTest, LargeActivationsHaveTheBitsOfOthers) {
  constexpr std::size_t kOutputs = 2048;
  const std::vector<float> bias(kOutputs, 0.25F);
  const Values weights(kOutputs, kCols, 8, false);
  const auto w = pack_matrix(weights.view(DType::kBf16, kOutputs), Compute::kBf16);
  expect_same_bits(kOutputs * sizeof(Bf16), [&](Results& y) {
    linear_activated(w, x_.operand(Compute::kBf16, 0, kRows), bias.data(), Activation::kQuickGelu,
                     {Compute::kBf16, y.data(), kRows, kOutputs, kOutputs}, pool_);
  });
}

TEST_P(StreamedStoresTest, LargeResultsOfAnFfnHaveTheBitsOfOthers) {
  constexpr std::size_t kHidden = 1024;
  const auto gate_up = random_integer_matrix(WeightFormat::kW4r, 64, kCols, 9, true);
  const auto down = random_integer_matrix(WeightFormat::kW4r, kHidden, 64, 10);
  expect_same_bits(kHidden * sizeof(float), [&](Results& y) {
    std::vector<void*> out;
    for (std::size_t r = 0; r < kRows; ++r) out.push_back(y.row(r));
    const FfnTask task{&gate_up, &down, {}, {}, out.data(), Compute::kF32};
    FfnScratch scratch;
    ffn({&task, 1}, x_.operand(Compute::kBf16, 0, kRows), scratch, pool_);
  });
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, StreamedStoresTest, testing::ValuesIn(available_isas()),
                         [](const auto& test) { return std::string(isa_name(test.param)); });

}  // namespace
}  // namespace moesaic
