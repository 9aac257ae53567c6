#include "common/kernels/linear.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "common/kernels/cpu/amx.hpp"
#include "common/kernels/elementwise.hpp"
#include "common/tensor/bf16.hpp"
#include "tests/unit/kernels/linear_fixture.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kMostRows = 70;
constexpr std::size_t kMostOutputs = 96;
constexpr std::size_t kRowCounts[] = {1, 2, 5, 7, 12, 13, 16, 17, 33, 70};

enum class Mode { kBf16, kF32WithBf16Weights, kF32 };

Compute compute_of(Mode mode) { return mode == Mode::kBf16 ? Compute::kBf16 : Compute::kF32; }
DType weight_type(Mode mode) { return mode == Mode::kF32 ? DType::kF32 : DType::kBf16; }

float flushed(float v) { return std::fabs(v) < 0x1p-126f ? std::copysign(0.0f, v) : v; }

/// What TDPBF16PS adds to c for 32 k: an even and an odd chain from zero, denormals counting as
/// zero on the way in and out.
float bf16_block(float c, const Bf16* x, const Bf16* w, std::size_t count) {
  const auto product = [&](std::size_t k, float sum) {
    const float a = k < count ? flushed(bf16_to_f32(x[k])) : 0.0f;
    const float b = k < count ? flushed(bf16_to_f32(w[k])) : 0.0f;
    return flushed(std::fma(a, b, sum));
  };
  float even = 0, odd = 0;
  for (std::size_t k = 0; k < 32; k += 2) {
    even = product(k, even);
    odd = product(k + 1, odd);
  }
  return flushed(flushed(c) + flushed(even + odd));
}

/// One output in the order the contract gives.
float expected_sum(Mode mode, const Values& x, std::size_t m, const Values& w, std::size_t n) {
  float total = 0;
  if (mode == Mode::kBf16) {
    for (std::size_t k = 0; k < x.cols; k += 32)
      total = bf16_block(total, &x.bf16[m * x.stride + k], &w.bf16[n * w.stride + k],
                         std::min<std::size_t>(32, x.cols - k));
    return total;
  }
  for (std::size_t k = 0; k < x.cols; k += 256) {
    float chain = 0;
    for (std::size_t i = k; i < std::min(k + 256, x.cols); ++i) {
      const float weight =
          mode == Mode::kF32 ? w.f32[n * w.stride + i] : bf16_to_f32(w.bf16[n * w.stride + i]);
      chain = std::fma(weight, x.f32[m * x.stride + i], chain);
    }
    total += chain;
  }
  return total;
}

/// Inputs of one K and the expected sums [kMostRows][kMostOutputs], made once.
struct Case {
  Values x, w;
  std::vector<float> sums;
};
const Case& case_of(Mode mode, std::size_t cols) {
  static std::map<std::pair<Mode, std::size_t>, Case> cases;
  const auto key = std::pair(mode, cols);
  if (const auto it = cases.find(key); it != cases.end()) return it->second;
  Case made{Values(kMostRows, cols, 1), Values(kMostOutputs, cols, 2), {}};
  for (std::size_t m = 0; m < kMostRows; ++m)
    for (std::size_t n = 0; n < kMostOutputs; ++n)
      made.sums.push_back(expected_sum(mode, made.x, m, made.w, n));
  return cases.emplace(key, std::move(made)).first->second;
}

std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }

class LinearTest : public testing::TestWithParam<std::tuple<Mode, std::size_t, std::size_t>> {
 protected:
  Mode mode() const { return std::get<0>(GetParam()); }
  std::size_t cols() const { return std::get<1>(GetParam()); }
  std::size_t outputs() const { return std::get<2>(GetParam()); }
};

TEST_P(LinearTest, EveryPortableLevelGivesTheBitsOfTheWrittenOrder) {
  const auto& data = case_of(mode(), cols());
  const auto w = pack_matrix(data.w.view(weight_type(mode()), outputs()), compute_of(mode()));
  const std::size_t ldy = outputs() + 3;
  for (const auto isa : available_isas()) {
    if (isa == Isa::kAvx512Bf16 && mode() == Mode::kBf16) continue;
    for (const auto rows : kRowCounts) {
      std::vector<float> y(rows * ldy, -77.0f);
      linear_for(isa)(w, data.x.operand(compute_of(mode()), 0, rows), y.data(), ldy, nullptr, 0,
                      w.panels());
      for (std::size_t m = 0; m < rows; ++m)
        for (std::size_t n = 0; n < ldy; ++n) {
          const float want = n < outputs() ? data.sums[m * kMostOutputs + n] : -77.0f;
          ASSERT_EQ(bits(y[m * ldy + n]), bits(want))
              << isa_name(isa) << " rows " << rows << " m " << m << " n " << n << ": "
              << y[m * ldy + n] << ", " << want << " expected";
        }
    }
  }
}

TEST_P(LinearTest, ThreadsAndBiasChangeNothingElse) {
  const auto& data = case_of(mode(), cols());
  const auto w = pack_matrix(data.w.view(weight_type(mode()), outputs()), compute_of(mode()));
  const ForcedIsa isa(available_isas().back() == Isa::kAvx512Bf16 ? Isa::kAvx512
                                                                  : available_isas().back());
  std::vector<float> bias(outputs());
  for (std::size_t n = 0; n < outputs(); ++n) bias[n] = 0.25f * static_cast<float>(n) - 3.0f;
  for (const unsigned threads : {1u, 2u, 3u}) {
    ThreadPool pool(threads);
    std::vector<float> y(kMostRows * outputs());
    linear(w, data.x.operand(compute_of(mode()), 0, kMostRows), y.data(), outputs(), bias.data(),
           pool);
    for (std::size_t m = 0; m < kMostRows; ++m)
      for (std::size_t n = 0; n < outputs(); ++n)
        ASSERT_EQ(bits(y[m * outputs() + n]), bits(data.sums[m * kMostOutputs + n] + bias[n]));
  }
}

TEST_P(LinearTest, AgreesWithTheReference) {
  const Values x(5, cols(), 3, /*extremes=*/false), weights(outputs(), cols(), 4, false);
  const auto w = pack_matrix(weights.view(weight_type(mode()), outputs()), compute_of(mode()));
  const auto operand = x.operand(compute_of(mode()), 0, 5);
  std::vector<float> want(5 * outputs()), got(want.size());
  linear_ref(w, operand, want.data(), outputs(), nullptr);
  for (const auto isa : available_isas()) {
    linear_for(isa)(w, operand, got.data(), outputs(), nullptr, 0, w.panels());
    // f32 sums of K products of size 1: 2^-24 * sqrt(K) each way, times a safe 8.
    const float tolerance = 8 * 0x1p-24f * static_cast<float>(cols());
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got[i], want[i], tolerance) << isa_name(isa);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, LinearTest,
    testing::Combine(testing::Values(Mode::kBf16, Mode::kF32WithBf16Weights, Mode::kF32),
                     testing::Values(32, 64, 75, 128, 192, 576, 588, 1280, 2560),
                     testing::Values(1, 31, 32, 33, 96)));

bool portable(Isa isa) { return isa != Isa::kAvx512Bf16; }

/// Equal bits, or both NaN.
bool same(float a, float b) { return bits(a) == bits(b) || (std::isnan(a) && std::isnan(b)); }

TEST(LinearManyRowsTest, EveryPortableLevelGivesTheBitsOfScalar) {
  for (const std::size_t cols : {64, 588, 1536, 5120})
    for (const std::size_t outputs : {33, 96}) {
      constexpr std::size_t kRows = 300;
      const Values x(kRows, cols, 21), weights(outputs, cols, 22);
      const auto w = pack_matrix(weights.view(DType::kBf16, outputs), Compute::kBf16);
      std::vector<float> want(kRows * outputs), got(want.size());
      linear_for(Isa::kScalar)(w, x.operand(Compute::kBf16, 0, kRows), want.data(), outputs,
                               nullptr, 0, w.panels());
      for (const auto isa : available_isas()) {
        if (!portable(isa)) continue;
        for (const std::size_t rows : {100, 287, 300}) {
          linear_for(isa)(w, x.operand(Compute::kBf16, 0, rows), got.data(), outputs, nullptr, 0,
                          w.panels());
          ASSERT_EQ(std::memcmp(got.data(), want.data(), rows * outputs * sizeof(float)), 0)
              << isa_name(isa) << " rows " << rows << " K " << cols << " N " << outputs;
        }
      }
    }
}

TEST(LinearManyRowsTest, InfinitiesStayInTheirRowsAndOutputs) {
  constexpr std::size_t kRows = 40, kCols = 96, kOutputs = 40;
  Values x(kRows, kCols, 23), weights(kOutputs, kCols, 24);
  const float infinity = std::numeric_limits<float>::infinity();
  x.bf16[3 * x.stride + 17] = f32_to_bf16(infinity);
  x.bf16[20 * x.stride + 70] = f32_to_bf16(-infinity);
  weights.bf16[5 * weights.stride + 40] = f32_to_bf16(infinity);
  const auto w = pack_matrix(weights.view(DType::kBf16, kOutputs), Compute::kBf16);
  for (const auto isa : available_isas()) {
    if (!portable(isa)) continue;
    std::vector<float> y(kRows * kOutputs);
    linear_for(isa)(w, x.operand(Compute::kBf16, 0, kRows), y.data(), kOutputs, nullptr, 0,
                    w.panels());
    for (std::size_t m = 0; m < kRows; ++m)
      for (std::size_t n = 0; n < kOutputs; ++n) {
        const float want = expected_sum(Mode::kBf16, x, m, weights, n);
        ASSERT_TRUE(same(y[m * kOutputs + n], want))
            << isa_name(isa) << " m " << m << " n " << n << ": " << y[m * kOutputs + n] << ", "
            << want << " expected";
        ASSERT_EQ(std::isfinite(want), m != 3 && m != 20 && n != 5);
      }
  }
}

class LinearEpilogueTest : public testing::TestWithParam<Mode> {};

TEST_P(LinearEpilogueTest, AddEqualsAProductThenAnAddition) {
  const auto compute = compute_of(GetParam());
  ThreadPool pool(2);
  for (const std::size_t outputs : {7, 33, 96}) {
    const Values x(kMostRows, 128, 25), weights(outputs, 128, 26);
    const auto w = pack_matrix(weights.view(weight_type(GetParam()), outputs), compute);
    std::vector<float> bias(outputs);
    for (std::size_t n = 0; n < outputs; ++n) bias[n] = 0.5f * static_cast<float>(n) - 3.0f;
    const std::size_t ldy = outputs + 3;
    for (const auto isa : available_isas())
      for (const float* b : std::initializer_list<const float*>{nullptr, bias.data()}) {
        const ForcedIsa forced(isa);
        std::vector<float> sums(kMostRows * ldy, 0.0f), want(kMostRows * ldy, 1.25f), got = want;
        linear(w, x.operand(compute, 0, kMostRows), sums.data(), ldy, b, pool);
        for (std::size_t i = 0; i < want.size(); ++i) want[i] = sums[i] + want[i];
        linear_add(w, x.operand(compute, 0, kMostRows), got.data(), ldy, b, pool);
        ASSERT_EQ(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)), 0)
            << isa_name(isa) << " N " << outputs;
      }
  }
}

TEST_P(LinearEpilogueTest, ActivatedEqualsAProductThenTheRowKernel) {
  const auto compute = compute_of(GetParam());
  ThreadPool pool(2);
  for (const std::size_t outputs : {7, 33, 96}) {
    const Values x(kMostRows, 128, 27), weights(outputs, 128, 28);
    const auto w = pack_matrix(weights.view(weight_type(GetParam()), outputs), compute);
    std::vector<float> bias(outputs, 0.125f);
    const std::size_t stride = outputs + 5;
    for (const auto isa : available_isas())
      for (const auto activation : {Activation::kQuickGelu, Activation::kGeluErf}) {
        const ForcedIsa forced(isa);
        std::vector<float> sums(kMostRows * outputs), f32(kMostRows * stride, -7.0f), want = f32;
        std::vector<Bf16> bf16(kMostRows * stride, Bf16{0x1234}), want_bf16 = bf16;
        linear(w, x.operand(compute, 0, kMostRows), sums.data(), outputs, bias.data(), pool);
        const auto& rows = elementwise_for(isa);
        const auto row = activation == Activation::kQuickGelu ? rows.quick_gelu : rows.gelu_erf;
        for (std::size_t m = 0; m < kMostRows; ++m)
          row(&sums[m * outputs], outputs, &want[m * stride], &want_bf16[m * stride]);
        const auto in = x.operand(compute, 0, kMostRows);
        linear_activated(w, in, bias.data(), activation,
                         {Compute::kF32, f32.data(), kMostRows, outputs, stride}, pool);
        linear_activated(w, in, bias.data(), activation,
                         {Compute::kBf16, bf16.data(), kMostRows, outputs, stride}, pool);
        ASSERT_EQ(std::memcmp(f32.data(), want.data(), f32.size() * sizeof(float)), 0)
            << isa_name(isa) << " N " << outputs;
        ASSERT_EQ(bf16, want_bf16) << isa_name(isa) << " N " << outputs;
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, LinearEpilogueTest,
                         testing::Values(Mode::kBf16, Mode::kF32WithBf16Weights, Mode::kF32));

/// c[16][16] += a[16][32] * b[16 pairs][16][2] by the instruction.
MOESAIC_AMX void tile_product(const Bf16* a, const Bf16* b, float* c) {
  const cpu::WholeTiles tiles;
  MOESAIC_TILE_LOAD(0, c, 64);
  MOESAIC_TILE_LOAD(1, a, 64);
  MOESAIC_TILE_LOAD(2, b, 64);
  MOESAIC_TILE_DOT(tdpbf16ps, 0, 1, 2);
  MOESAIC_TILE_STORE(0, c, 64);
}

TEST(TileProductTest, IsTheWrittenOrderWhateverTheBits) {
  if (available_isas().back() != Isa::kAmx) GTEST_SKIP() << "this CPU has no tiles";
  std::mt19937 random(29);
  // Any finite value; the second round mostly denormals and values whose products underflow.
  for (int round = 0; round < 40; ++round) {
    const auto any = [&] {
      auto value = static_cast<Bf16>(random());
      if (round % 2 != 0) value &= 0xbfff >> (random() % 3 == 0 ? 0 : 1);
      return (value & 0x7f80) == 0x7f80 ? static_cast<Bf16>(value ^ 0x4000) : value;
    };
    alignas(64) Bf16 a[16 * 32], b[16 * 32];
    alignas(64) float c[16 * 16];
    for (auto& v : a) v = any();
    for (auto& v : b) v = any();
    for (auto& v : c) v = std::bit_cast<float>(std::uint32_t{any()} << 16);
    std::vector<float> want;
    for (std::size_t m = 0; m < 16; ++m)
      for (std::size_t n = 0; n < 16; ++n) {
        Bf16 column[32];
        for (std::size_t k = 0; k < 32; ++k) column[k] = b[(k / 2 * 16 + n) * 2 + k % 2];
        want.push_back(bf16_block(c[m * 16 + n], a + m * 32, column, 32));
      }
    tile_product(a, b, c);
    for (std::size_t i = 0; i < want.size(); ++i)
      ASSERT_TRUE(same(c[i], want[i])) << "round " << round << " element " << i << ": " << c[i]
                                       << ", " << want[i] << " expected";
  }
}

/// The level with its own order of bf16 sums: a row must still not depend on its neighbours.
TEST(LinearAvx512Bf16Test, DecodeRowsEqualPrefillRows) {
  if (available_isas().back() != Isa::kAvx512Bf16) GTEST_SKIP() << "this CPU has no such level";
  for (const std::size_t cols : {32, 588, 2560}) {
    const Values x(kMostRows, cols, 5), weights(33, cols, 6);
    const auto w = pack_matrix(weights.view(DType::kBf16, 33), Compute::kBf16);
    const auto run = linear_for(Isa::kAvx512Bf16);
    std::vector<float> batch(kMostRows * 33), row(33);
    run(w, x.operand(Compute::kBf16, 0, kMostRows), batch.data(), 33, nullptr, 0, w.panels());
    for (std::size_t m = 0; m < kMostRows; ++m) {
      run(w, x.operand(Compute::kBf16, m, 1), row.data(), 33, nullptr, 0, w.panels());
      ASSERT_EQ(std::memcmp(row.data(), &batch[m * 33], 33 * sizeof(float)), 0) << "row " << m;
    }
  }
}

TEST(LinearManyRowsTest, ChunksAndRowBlocksChangeNothing) {
  constexpr std::size_t kRows = 3000, kCols = 2560, kOutputs = 40;
  const Values x(kRows, kCols, 7), weights(kOutputs, kCols, 8);
  const auto w = pack_matrix(weights.view(DType::kBf16, kOutputs), Compute::kBf16);
  ThreadPool pool(2);
  std::vector<float> all(kRows * kOutputs), one(kOutputs);
  linear(w, x.operand(Compute::kBf16, 0, kRows), all.data(), kOutputs, nullptr, pool);
  for (std::size_t m = 0; m < kRows; m += 37) {
    linear(w, x.operand(Compute::kBf16, m, 1), one.data(), kOutputs, nullptr, pool);
    ASSERT_EQ(std::memcmp(one.data(), &all[m * kOutputs], kOutputs * sizeof(float)), 0) << m;
  }
}

class LinearGateUpTest : public testing::TestWithParam<std::tuple<Compute, std::size_t>> {};

TEST_P(LinearGateUpTest, IsSiluOfGateTimesUpAtEveryLevel) {
  const auto [compute, width] = GetParam();
  constexpr std::size_t kRows = 17, kCols = 192;
  const Values x(kRows, kCols, 9, false), gate(width, kCols, 10, false),
      up(width, kCols, 11, false);
  const auto w =
      pack_gate_up(gate.view(DType::kBf16, width), up.view(DType::kBf16, width), compute);
  const Mode mode = compute == Compute::kBf16 ? Mode::kBf16 : Mode::kF32WithBf16Weights;
  const std::size_t stride = width + 9, cols = width + 6;
  ThreadPool pool(2);
  std::vector<float> first;
  for (const auto isa : available_isas()) {
    const ForcedIsa forced(isa);
    std::vector<float> f32(kRows * stride, -7.0f);
    std::vector<Bf16> bf16(kRows * stride, Bf16{0x1234});
    void* data = compute == Compute::kF32 ? static_cast<void*>(f32.data()) : bf16.data();
    linear_gate_up(w, x.operand(compute, 0, kRows), {compute, data, kRows, cols, stride}, pool);
    for (std::size_t m = 0; m < kRows; ++m) {
      for (std::size_t i = 0; i < width; ++i) {
        const double g = expected_sum(mode, x, m, gate, i), u = expected_sum(mode, x, m, up, i);
        const double want = g / (1 + std::exp(-g)) * u;
        const std::size_t at = m * stride + i;
        const double got = compute == Compute::kF32 ? double{f32[at]} : bf16_to_f32(bf16[at]);
        // exp_portable is within 4e-6; bf16 keeps 8 bits; at avx512bf16 sums differ in the last
        // bits.
        const double relative = compute == Compute::kF32 ? 1e-5 : 0x1p-8;
        ASSERT_NEAR(got, want, relative * std::fabs(want) + 1e-4) << isa_name(isa);
      }
      for (std::size_t i = width; i < stride; ++i) {
        const std::size_t at = m * stride + i;
        if (compute == Compute::kF32) {
          ASSERT_EQ(f32[at], i < cols ? 0.0f : -7.0f);
        } else {
          ASSERT_EQ(bf16[at], i < cols ? 0 : 0x1234);
        }
      }
    }
    if (isa == Isa::kAvx512Bf16 && compute == Compute::kBf16) continue;
    for (std::size_t i = 0; compute == Compute::kBf16 && i < bf16.size(); ++i)
      f32[i] = bf16_to_f32(bf16[i]);
    if (first.empty()) first = f32;
    ASSERT_EQ(std::memcmp(first.data(), f32.data(), f32.size() * sizeof(float)), 0)
        << isa_name(isa) << " differs from scalar";
  }
}

INSTANTIATE_TEST_SUITE_P(Widths, LinearGateUpTest,
                         testing::Combine(testing::Values(Compute::kF32, Compute::kBf16),
                                          testing::Values(1, 16, 33, 64)));

}  // namespace
}  // namespace moesaic
