#include "common/quantize/ccq_encoder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "common/quantize/ccq_files.hpp"
#include "common/quantize/quantize.hpp"
#include "tests/unit/quantize/samples.hpp"

namespace moesaic {
namespace {

/// [k][n] as [n][k].
std::vector<float> turned(const std::vector<float>& values, std::size_t k, std::size_t n) {
  std::vector<float> out(values.size());
  for (std::size_t i = 0; i < k; ++i)
    for (std::size_t j = 0; j < n; ++j) out[j * k + i] = values[i * n + j];
  return out;
}

template <class Tensors>
std::vector<float> rows_of(const Tensors& t) {
  std::vector<float> out(t.k * t.n);
  if constexpr (std::is_same_v<Tensors, Ccq2Tensors>)
    decode(t.view(), out);
  else
    decode(t, out);
  return turned(out, t.k, t.n);
}

/// Two bits a weight without overlap: levels -1.5, -0.5, 0.5, 1.5 steps, the best of many steps for
/// each group of 64.
std::vector<float> plain_two_bits(const std::vector<float>& w) {
  std::vector<float> out(w.size());
  for (std::size_t g = 0; g < w.size(); g += 64) {
    double square = 0;
    for (std::size_t i = g; i < g + 64; ++i) square += double{w[i]} * w[i];
    const double sigma = std::sqrt(square / 64);
    double least = std::numeric_limits<double>::infinity();
    for (double step = 0.5 * sigma; step < 2 * sigma; step *= 1.02) {
      std::array<float, 64> q;
      double error = 0;
      for (std::size_t i = 0; i < 64; ++i) {
        const double level = std::clamp(std::floor(w[g + i] / step) + 0.5, -1.5, 1.5);
        q[i] = static_cast<float>(level * step);
        error += std::pow(double{w[g + i]} - q[i], 2);
      }
      if (error >= least) continue;
      least = error;
      std::copy(q.begin(), q.end(), out.begin() + static_cast<std::ptrdiff_t>(g));
    }
  }
  return out;
}

enum class Kind { kGaussian, kStudent, kLaplace, kGroups };

std::vector<float> sample(Kind kind, std::size_t n) {
  Draws draws(77 + static_cast<std::uint64_t>(kind));
  std::vector<float> w(n);
  double sigma = 0.02;
  for (std::size_t i = 0; i < n; ++i) {
    if (kind == Kind::kGroups && i % 64 == 0) sigma = 0.02 * std::exp(0.3 * draws.gaussian());
    const double x = kind == Kind::kStudent   ? draws.student(5)
                     : kind == Kind::kLaplace ? draws.laplace()
                                              : draws.gaussian();
    w[i] = static_cast<float>(sigma * x);
  }
  return w;
}

struct Row {
  Kind kind;
  double fixed, best_of_8, ccq25, ccq275;
};

// quantization.md 7, SNR in dB, within 0.1 for Gaussian data. Its figures come from six columns:
// where tails are heavy or groups unequal, one such sample differs by more from the next.
TEST(CcqEncoderTest, SignalToNoiseIsThatOfTheTable) {
  constexpr std::size_t kCols = 1024;
  constexpr std::size_t kRows = 160;
  for (const auto& [kind, fixed, best_of_8, ccq25, ccq275] :
       {Row{Kind::kGaussian, 9.81, 10.00, 10.28, 11.19},
        Row{Kind::kStudent, 7.90, 8.10, 8.35, 8.94}, Row{Kind::kLaplace, 8.09, 8.21, 8.60, 9.19},
        Row{Kind::kGroups, 9.61, 9.73, 10.24, 11.09}}) {
    SCOPED_TRACE(static_cast<int>(kind));
    const auto w = sample(kind, kRows * kCols);
    const auto view = view_of(w, kRows, kCols);
    const bool gaussian = kind == Kind::kGaussian;
    const auto near = [&](double got, double want) {
      EXPECT_GT(got, want - (gaussian ? 0.1 : 0.15));
      EXPECT_LT(got, want + (gaussian ? 0.1 : 0.35));
    };
    const auto a = encode_ccq2(view, {}, nullptr);
    const auto b = encode_ccq2(view, ccq2_code_pairs().first(8), nullptr);
    const auto c = encode_ccq25(view, nullptr);
    const auto d = encode_ccq275(view, nullptr);
    ASSERT_TRUE(a && b && c && d);
    near(snr_db(w, rows_of(*a)), fixed);
    near(snr_db(w, rows_of(*b)), best_of_8);
    near(snr_db(w, rows_of(*c)), ccq25);
    near(snr_db(w, rows_of(*d)), ccq275);
    EXPECT_GT(snr_db(w, rows_of(*a)), snr_db(w, plain_two_bits(w)));
  }
}

TEST(CcqEncoderTest, PanelsAndFilesAreTheSameCodes) {
  const auto w = gaussian_weights(std::size_t{37} * 200, 3);
  const auto view = view_of(w, 37, 200);
  const auto packed = quantize_matrix(view, {WeightFormat::kCcq2}, nullptr, nullptr);
  const auto files = encode_ccq2(view, {}, nullptr);
  ASSERT_TRUE(packed && files);
  EXPECT_EQ(files->k, 256U);
  const auto again = pack_ccq2(files->view(), 200);
  ASSERT_TRUE(again);
  EXPECT_EQ(weights_of(*again), weights_of(*packed));
  for (const float scale : files->code_scale) EXPECT_EQ(scale, 121.0F);
  for (const float zero : files->code_zp) EXPECT_EQ(zero, 950.0F);
  EXPECT_GT(snr_db(w, weights_of(*packed)), 9.3);
}

// What a pack computes with is bit for bit what the file's reader decodes.
TEST(CcqEncoderTest, PanelsDecodeToTheReconstructionOfTheFiles) {
  const auto w = gaussian_weights(std::size_t{37} * 200, 3);
  const auto view = view_of(w, 37, 200);
  const auto real = [](const std::vector<float>& padded, std::size_t k) {
    std::vector<float> out;
    for (std::size_t n = 0; n < 37; ++n)
      out.insert(out.end(), padded.begin() + static_cast<std::ptrdiff_t>(n * k),
                 padded.begin() + static_cast<std::ptrdiff_t>(n * k + 200));
    return out;
  };
  for (const auto method : {QuantMethod::kSearch, QuantMethod::kCalibrated}) {
    const InputStatistics none{200, std::vector<float>(200 * 200), 0};
    const auto packed = [&](WeightFormat format) {
      return *quantize_matrix(view, {format, method}, &none, nullptr);
    };
    const auto a = packed(WeightFormat::kCcq2), b = packed(WeightFormat::kCcq25),
               c = packed(WeightFormat::kCcq275);
    EXPECT_EQ(weights_of(a), real(rows_of(unpack_ccq2(a)), 256));
    EXPECT_EQ(weights_of(b), real(rows_of(unpack_ccq25(b)), 256));
    EXPECT_EQ(weights_of(c), real(rows_of(unpack_ccq275(c)), 256));
    EXPECT_GT(snr_db(w, weights_of(b)), 9.9);
    EXPECT_GT(snr_db(w, weights_of(c)), 10.7);
  }
}

TEST(CcqEncoderTest, EncodingWhatWasDecodedAddsLittle) {
  const auto w = gaussian_weights(std::size_t{16} * 512, 4);
  const auto view = view_of(w, 16, 512);
  const auto stable = [&](auto&& encode) {
    const auto first = rows_of(*encode(view));
    const auto second = rows_of(*encode(view_of(first, 16, 512)));
    EXPECT_GT(snr_db(first, second), 30);
    EXPECT_GT(snr_db(w, second), snr_db(w, first) - 0.05);
  };
  stable([](const MatrixView& v) { return encode_ccq2(v, {}, nullptr); });
  stable([](const MatrixView& v) { return encode_ccq25(v, nullptr); });
  stable([](const MatrixView& v) { return encode_ccq275(v, nullptr); });
}

TEST(CcqEncoderTest, EachRowKeepsItsBestPair) {
  const auto w = gaussian_weights(std::size_t{20} * 256, 5);
  const auto view = view_of(w, 20, 256);
  const auto pairs = ccq2_code_pairs();
  const auto best = encode_ccq2(view, pairs, nullptr);
  ASSERT_TRUE(best);
  const auto got = rows_of(*best);
  const auto error = [&](const std::vector<float>& q, std::size_t row) {
    double sum = 0;
    for (std::size_t k = row * 256; k < (row + 1) * 256; ++k)
      sum += std::pow(double{w[k]} - q[k], 2);
    return sum;
  };
  std::size_t others = 0;
  for (const auto& pair : pairs) {
    const auto one = encode_ccq2(view, {&pair, 1}, nullptr);
    ASSERT_TRUE(one);
    const auto q = rows_of(*one);
    for (std::size_t row = 0; row < 20; ++row)
      EXPECT_LE(error(got, row), error(q, row) * (1 + 1e-6));
  }
  for (std::size_t n = 0; n < 20; ++n) {
    const CodePair pair{static_cast<int>(best->code_scale[n]), static_cast<int>(best->code_zp[n])};
    EXPECT_NE(std::find(pairs.begin(), pairs.end(), pair), pairs.end());
    others += pair == pairs[0] ? 0 : 1;
  }
  EXPECT_GT(others, 5U);
  EXPECT_TRUE(columns_that_fusing_changes(best->view()).empty());
}

TEST(CcqEncoderTest, PairsBeyondFifteenBitsAreRefused) {
  const auto w = gaussian_weights(256, 6);
  const CodePair pair{128, 200};
  const auto bad = encode_ccq2(view_of(w, 1, 256), {&pair, 1}, nullptr);
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, Errc::kInvalidArgument);
  EXPECT_THAT(bad.error().what, testing::HasSubstr("128/200"));
}

TEST(CcqEncoderTest, ColumnsOfOddSortsAreEncoded) {
  constexpr std::size_t kCols = 128;
  std::vector<float> w(6 * kCols, 0.0F);  // row 0: zeros
  w[kCols + 70] = 0.5F;                   // row 1: one outlier in zeros
  std::fill_n(w.begin() + 2 * kCols, kCols, -0.25F);
  w[3 * kCols] = 1e-42F;
  const auto noise = gaussian_weights(2 * kCols, 7);
  std::copy(noise.begin(), noise.end(), w.begin() + 4 * kCols);
  w[4 * kCols + 3] = 1.0F;  // row 4: one outlier of 50 sigma
  for (std::size_t k = 5 * kCols; k < 6 * kCols; ++k) w[k] *= 0x1p120F;
  const auto view = view_of(w, 6, kCols);
  const auto a = encode_ccq2(view, {}, nullptr);
  const auto b = encode_ccq25(view, nullptr);
  const auto c = encode_ccq275(view, nullptr);
  ASSERT_TRUE(a && b && c);
  EXPECT_EQ(a->weight_scale[0], 0);
  EXPECT_EQ(bf16_to_f32(a->super_scales[0]), 0.0F);
  EXPECT_EQ(a->weight_scale[1] >> 4, 0) << "the first group of row 1 is zeros";
  for (const auto& got : {rows_of(*a), rows_of(*b), rows_of(*c)}) {
    for (std::size_t k = 0; k < kCols; ++k) {
      ASSERT_EQ(got[k], 0.0F);
      ASSERT_EQ(got[3 * kCols + k], 0.0F) << "denormal";
    }
    for (std::size_t k = 0; k < 64; ++k) ASSERT_EQ(got[kCols + k], 0.0F);
    // Neighbours of a large weight share bits with it, so it cannot be reached: but it shrinks the
    // error.
    for (const std::size_t row : {1U, 4U}) {
      const auto part = [&](const std::vector<float>& from) {
        return std::vector<float>(from.begin() + static_cast<std::ptrdiff_t>(row * kCols),
                                  from.begin() + static_cast<std::ptrdiff_t>((row + 1) * kCols));
      };
      EXPECT_GT(snr_db(part(w), part(got)), 1);
    }
    for (std::size_t k = 2 * kCols; k < 3 * kCols; ++k) ASSERT_NEAR(got[k], -0.25, 0.06);
    for (std::size_t k = 5 * kCols; k < 6 * kCols; ++k) {
      ASSERT_TRUE(std::isfinite(got[k]));
      ASSERT_LT(std::fabs(got[k] - w[k]), 0.05F * 0x1p120F);
    }
  }
}

TEST(CcqEncoderTest, WeightsThatAreNotFiniteAreNamed) {
  auto w = gaussian_weights(std::size_t{70} * 64, 8);
  w[69 * 64 + 5] = std::numeric_limits<float>::infinity();
  w[66 * 64 + 7] = std::numeric_limits<float>::quiet_NaN();
  ThreadPool pool(2);
  const auto a = encode_ccq2(view_of(w, 70, 64), {}, &pool);
  const auto b = encode_ccq25(view_of(w, 70, 64), &pool);
  const auto c = encode_ccq275(view_of(w, 70, 64), &pool);
  ASSERT_TRUE(!a && !b && !c);
  for (const auto& error : {a.error(), b.error(), c.error()}) {
    EXPECT_EQ(error.code, Errc::kInvalidArgument);
    EXPECT_EQ(error.what, "row 66, column 7: nan is not a weight");
  }
}

TEST(CcqEncoderTest, PaddingCostsNothing) {
  for (const std::size_t cols : {32U, 64U, 192U, 576U, 30U, 65U}) {
    SCOPED_TRACE(cols);
    const auto w = gaussian_weights(48 * cols, cols);
    const auto view = view_of(w, 48, cols);
    const auto packed = quantize_matrix(view, {WeightFormat::kCcq2}, nullptr, nullptr);
    ASSERT_TRUE(packed);
    EXPECT_GT(snr_db(w, weights_of(*packed)), 9.4);
    const auto files = unpack_ccq2(*packed);
    EXPECT_EQ(files.k % 128, 0U);
    for (std::size_t g = (cols + 63) / 64; g < files.k / 64; ++g)
      for (std::size_t n = 0; n < files.n; ++n)
        ASSERT_EQ(files.weight_scale[g / 2 * files.n + n] & (g % 2 == 0 ? 0xf0 : 0x0f), 0);
    const auto b = encode_ccq25(view, nullptr);
    const auto c = encode_ccq275(view, nullptr);
    ASSERT_TRUE(b && c);
    EXPECT_EQ(b->k, (cols + 63) / 64 * 64);
    const auto real = [&](const std::vector<float>& padded) {
      std::vector<float> out;
      for (std::size_t n = 0; n < 48; ++n)
        for (std::size_t k = 0; k < cols; ++k) out.push_back(padded[n * b->k + k]);
      return out;
    };
    EXPECT_GT(snr_db(w, real(rows_of(*b))), 9.9);
    EXPECT_GT(snr_db(w, real(rows_of(*c))), 10.7);
  }
}

}  // namespace
}  // namespace moesaic
