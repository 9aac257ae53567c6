#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
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
class Rows {
 public:
  Rows(std::size_t row_bytes, bool aligned) : row_bytes_(row_bytes), from_(aligned ? 0 : 4) {}

  std::byte* data() { return memory_.data() + from_; }
  std::byte* row(std::size_t r) { return data() + r * row_bytes_; }
  bool operator==(Rows& other) {
    return std::memcmp(data(), other.data(), kRows * row_bytes_) == 0;
  }

 private:
  std::size_t row_bytes_, from_;
  AlignedBuffer memory_{kRows * row_bytes_ + 64};
};

class StreamedStoresTest : public testing::TestWithParam<Isa> {
 protected:
  ForcedIsa forced_{GetParam()};
  ThreadPool pool_{2};
  Values x_{kRows, kCols, 5, false};
};

TEST_P(StreamedStoresTest, LargeSumsHaveTheBitsOfOthers) {
  constexpr std::size_t kOutputs = 1024, kBytes = kOutputs * sizeof(float);
  static_assert(kRows * kBytes > cpu::kStreamBytes);
  const std::vector<float> bias(kOutputs, 0.25F);
  const Values weights(kOutputs, kCols, 6, false);
  const auto bf16 = pack_matrix(weights.view(DType::kBf16, kOutputs), Compute::kBf16);
  const auto w4 = random_integer_matrix(WeightFormat::kW4r, kOutputs, kCols, 7);
  for (const auto* w : {&bf16, &w4})
    for (const float* b : {static_cast<const float*>(nullptr), bias.data()}) {
      Rows streamed(kBytes, true), plain(kBytes, false);
      ASSERT_TRUE(cpu::streams(streamed.data(), kBytes));
      ASSERT_FALSE(cpu::streams(plain.data(), kBytes));
      for (auto* y : {&streamed, &plain})
        linear(*w, x_.operand(Compute::kBf16, 0, kRows), reinterpret_cast<float*>(y->data()),
               kOutputs, b, pool_);
      EXPECT_TRUE(streamed == plain) << format_name(w->format) << (b == nullptr ? "" : ", bias");
    }
}

TEST_P(StreamedStoresTest, LargeActivationsHaveTheBitsOfOthers) {
  constexpr std::size_t kOutputs = 2048, kBytes = kOutputs * sizeof(Bf16);
  static_assert(kRows * kBytes > cpu::kStreamBytes);
  const std::vector<float> bias(kOutputs, 0.25F);
  const Values weights(kOutputs, kCols, 8, false);
  const auto w = pack_matrix(weights.view(DType::kBf16, kOutputs), Compute::kBf16);
  Rows streamed(kBytes, true), plain(kBytes, false);
  for (auto* y : {&streamed, &plain})
    linear_activated(w, x_.operand(Compute::kBf16, 0, kRows), bias.data(), Activation::kQuickGelu,
                     {Compute::kBf16, y->data(), kRows, kOutputs, kOutputs}, pool_);
  EXPECT_TRUE(streamed == plain);
}

TEST_P(StreamedStoresTest, LargeResultsOfAnFfnHaveTheBitsOfOthers) {
  constexpr std::size_t kHidden = 1024, kBytes = kHidden * sizeof(float);
  const auto gate_up = random_integer_matrix(WeightFormat::kW4r, 64, kCols, 9, true);
  const auto down = random_integer_matrix(WeightFormat::kW4r, kHidden, 64, 10);
  Rows streamed(kBytes, true), plain(kBytes, false);
  for (auto* y : {&streamed, &plain}) {
    std::vector<void*> out;
    for (std::size_t r = 0; r < kRows; ++r) out.push_back(y->row(r));
    const FfnTask task{&gate_up, &down, {}, {}, out.data(), Compute::kF32};
    FfnScratch scratch;
    ffn({&task, 1}, x_.operand(Compute::kBf16, 0, kRows), scratch, pool_);
  }
  EXPECT_TRUE(streamed == plain);
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, StreamedStoresTest, testing::ValuesIn(available_isas()),
                         [](const auto& test) { return std::string(isa_name(test.param)); });

}  // namespace
}  // namespace moesaic
