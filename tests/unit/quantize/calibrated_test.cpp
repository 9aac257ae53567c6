#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "common/quantize/input_factor.hpp"
#include "common/quantize/quantize.hpp"
#include "tests/unit/quantize/samples.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kCols = 256;
constexpr std::size_t kRows = 48;

/// Inputs of quantization.md 6.5: AR(1), feature deviations log-normal 0.5.
InputStatistics autoregressive(std::size_t cols, double rho) {
  Draws draws(11);
  std::vector<double> deviation(cols);
  for (auto& d : deviation) d = std::exp(0.5 * draws.gaussian());
  InputStatistics stats{cols, std::vector<float>(cols * cols), 4096};
  for (std::size_t i = 0; i < cols; ++i)
    for (std::size_t j = 0; j < cols; ++j)
      stats.second_moment[i * cols + j] = static_cast<float>(
          deviation[i] * deviation[j] *
          std::pow(rho, std::fabs(static_cast<double>(i) - static_cast<double>(j))));
  return stats;
}

/// w^T H w against (w - q)^T H (w - q) over all rows, dB.
double product_db(const std::vector<float>& w, const std::vector<float>& q,
                  const InputStatistics& stats) {
  const std::size_t cols = stats.cols;
  double signal = 0;
  double noise = 0;
  for (std::size_t r = 0; r < w.size(); r += cols)
    for (std::size_t i = 0; i < cols; ++i) {
      double a = 0;
      double b = 0;
      for (std::size_t j = 0; j < cols; ++j) {
        const double h = stats.second_moment[i * cols + j];
        a += h * w[r + j];
        b += h * (double{w[r + j]} - q[r + j]);
      }
      signal += a * w[r + i];
      noise += b * (double{w[r + i]} - q[r + i]);
    }
  return 10 * std::log10(signal / noise);
}

double quality(const std::vector<float>& w, const QuantSpec& spec, const InputStatistics& stats) {
  const auto q =
      quantize_matrix(view_of(w, w.size() / stats.cols, stats.cols), spec, &stats, nullptr);
  EXPECT_TRUE(q) << q.error().what;
  return q ? product_db(w, weights_of(*q), stats) : 0;
}

struct Gain {
  double rho;
  double w8, w4;  // over the plain encoder, dB
  double ccq2;    // of the products, dB [quantization.md 6.5]
  double gain;    // of CCQ-2.5 and 2.75 over the plain encoder, dB
};

TEST(CalibratedTest, ProductsAreBetterInTheOrderOfTheTable) {
  const auto w = gaussian_weights(kRows * kCols, 5);
  for (const auto& [rho, w8, w4, ccq2, gain] :
       {Gain{0.0, -0.05, 0.3, 10.88, 0.5}, Gain{0.5, 0.8, 1.2, 11.82, 1.2},
        Gain{0.8, 3.5, 3.5, 15.19, 3.5}, Gain{0.95, 8.5, 8.5, 20.36, 7.5}}) {
    SCOPED_TRACE(rho);
    const auto stats = autoregressive(kCols, rho);
    const auto of = [&](WeightFormat format, QuantMethod method) {
      return quality(w, {format, method}, stats);
    };
    EXPECT_GT(of(WeightFormat::kW8r, QuantMethod::kCalibrated),
              of(WeightFormat::kW8r, QuantMethod::kSearch) + w8);
    EXPECT_GT(of(WeightFormat::kW4r, QuantMethod::kCalibrated),
              of(WeightFormat::kW4r, QuantMethod::kSearch) + w4);
    EXPECT_GT(of(WeightFormat::kCcq2, QuantMethod::kCalibrated), ccq2 - 0.1);
    EXPECT_LT(of(WeightFormat::kCcq2, QuantMethod::kSearch), 10.6);
    // More bits, and the gain of two: 2.75 is nearest, 2.5 lies between where inputs are apart.
    for (const auto format : {WeightFormat::kCcq25, WeightFormat::kCcq275}) {
      EXPECT_GT(of(format, QuantMethod::kCalibrated), of(format, QuantMethod::kSearch) + gain);
      EXPECT_GT(of(format, QuantMethod::kSearch), 10.0);
    }
    EXPECT_GT(of(WeightFormat::kCcq275, QuantMethod::kCalibrated),
              of(WeightFormat::kCcq2, QuantMethod::kCalibrated));
  }
}

TEST(CalibratedTest, EveryLevelThreadCountAndPieceGivesTheSameBytes) {
  ThreadPool pool(3);
  for (const std::size_t cols : {70U, 192U}) {
    const auto stats = autoregressive(cols, 0.7);
    const auto w = gaussian_weights(70 * cols, cols);
    const auto factor = InputFactor::make(stats, 0.01, &pool);
    ASSERT_TRUE(factor);
    for (const auto format : kFormats) {
      QuantSpec spec{format, QuantMethod::kCalibrated, ccq2_code_pairs().first(2)};
      spec.isa = Isa::kScalar;
      const auto want = quantize_matrix(view_of(w, 70, cols), spec, &stats, nullptr);
      ASSERT_TRUE(want);
      spec.inputs = *factor;
      for (const Isa isa : available_isas()) {
        spec.isa = isa;
        const auto got = quantize_matrix(view_of(w, 70, cols), spec, nullptr, &pool);
        ASSERT_TRUE(got);
        ASSERT_EQ(std::memcmp(got->data, want->data, want->bytes()), 0)
            << isa_name(isa) << ' ' << format_name(format);
      }
      MatrixView piece = view_of(w, 70, cols);
      piece.data += 32 * cols * sizeof(float);
      piece.rows = 32;
      const auto second = quantize_matrix(piece, spec, nullptr, nullptr);
      ASSERT_TRUE(second);
      EXPECT_EQ(std::memcmp(second->data, want->data + want->panel_bytes(), want->panel_bytes()),
                0);
    }
  }
}

TEST(CalibratedTest, InputsThatAreAlwaysZeroDoNotBreakIt) {
  auto stats = autoregressive(kCols, 0.8);
  for (const std::size_t dead : {0U, 17U, 100U, 255U})
    for (std::size_t i = 0; i < kCols; ++i)
      stats.second_moment[dead * kCols + i] = stats.second_moment[i * kCols + dead] = 0;
  const auto w = gaussian_weights(kRows * kCols, 6);
  for (const auto format : kFormats) {
    const double plain = quality(w, {format, QuantMethod::kSearch}, stats);
    EXPECT_GT(quality(w, {format, QuantMethod::kCalibrated}, stats), plain + 3);
  }
}

TEST(CalibratedTest, WithoutAnyInputItIsAsGoodAsPlain) {
  const InputStatistics none{kCols, std::vector<float>(kCols * kCols), 0};
  const auto w = gaussian_weights(kRows * kCols, 7);
  for (const auto format : kFormats) {
    const auto view = view_of(w, kRows, kCols);
    const auto plain = quantize_matrix(view, {format, QuantMethod::kSearch}, nullptr, nullptr);
    const auto got = quantize_matrix(view, {format, QuantMethod::kCalibrated}, &none, nullptr);
    ASSERT_TRUE(plain && got);
    EXPECT_NEAR(snr_db(w, weights_of(*got)), snr_db(w, weights_of(*plain)), 0.05);
  }
}

TEST(CalibratedTest, FewerRowsThanColumnsAreEnough) {
  const auto x = gaussian_weights(10 * kCols, 8, 1.0);
  InputStatistics stats{kCols, std::vector<float>(kCols * kCols), 10};
  for (std::size_t i = 0; i < kCols; ++i)
    for (std::size_t j = 0; j < kCols; ++j) {
      double sum = 0;
      for (std::size_t r = 0; r < 10; ++r) sum += double{x[r * kCols + i]} * x[r * kCols + j];
      stats.second_moment[i * kCols + j] = static_cast<float>(sum / 10);
    }
  const auto w = gaussian_weights(kRows * kCols, 9);
  for (const auto format : kFormats) {
    const double plain = quality(w, {format, QuantMethod::kSearch}, stats);
    EXPECT_GT(quality(w, {format, QuantMethod::kCalibrated}, stats), plain + 3);
  }
}

TEST(CalibratedTest, GateAndUpShareTheirInputs) {
  const auto stats = autoregressive(128, 0.8);
  const auto gate = gaussian_weights(std::size_t{20} * 128, 10);
  const auto up = gaussian_weights(std::size_t{20} * 128, 11);
  for (const auto format : kFormats) {
    const QuantSpec spec{format, QuantMethod::kCalibrated};
    const auto both =
        quantize_gate_up(view_of(gate, 20, 128), view_of(up, 20, 128), spec, &stats, nullptr);
    const auto a = quantize_matrix(view_of(gate, 20, 128), spec, &stats, nullptr);
    const auto b = quantize_matrix(view_of(up, 20, 128), spec, &stats, nullptr);
    ASSERT_TRUE(both && a && b);
    auto want = weights_of(*a);
    const auto tail = weights_of(*b);
    want.insert(want.end(), tail.begin(), tail.end());
    EXPECT_EQ(weights_of(*both), want);
  }
}

TEST(CalibratedTest, MissingOrBrokenStatisticsAreErrors) {
  const auto w = gaussian_weights(4 * kCols, 12);
  const auto error = [&](const InputStatistics* stats, double damping = 0.01) {
    QuantSpec spec{WeightFormat::kW4r, QuantMethod::kCalibrated};
    spec.damping = damping;
    const auto q = quantize_matrix(view_of(w, 4, kCols), spec, stats, nullptr);
    return q ? Error{} : q.error();
  };
  auto stats = autoregressive(kCols, 0.5);
  EXPECT_EQ(error(&stats).what, "");
  EXPECT_EQ(error(nullptr).code, Errc::kInvalidArgument);
  EXPECT_EQ(error(&stats, 0).code, Errc::kInvalidArgument);
  EXPECT_EQ(error(&stats, std::nan("")).code, Errc::kInvalidArgument);
  const auto narrow = autoregressive(64, 0.5);
  EXPECT_EQ(error(&narrow).code, Errc::kShapeMismatch);
  stats.second_moment.pop_back();
  EXPECT_EQ(error(&stats).code, Errc::kShapeMismatch);
  stats.second_moment.push_back(std::numeric_limits<float>::quiet_NaN());
  EXPECT_THAT(error(&stats).what, testing::HasSubstr("row 255, column 255: nan"));
  stats.second_moment.back() = -3;
  EXPECT_THAT(error(&stats).what, testing::HasSubstr("not positive semidefinite"));
}

TEST(InputFactorTest, TimesItsTransposeIsTheDampedMoment) {
  ThreadPool pool(3);
  for (const std::size_t cols : {1U, 64U, 70U, 200U}) {
    const auto stats = autoregressive(cols, 0.9);
    const auto factor = InputFactor::make(stats, 0.01, nullptr);
    const auto parallel = InputFactor::make(stats, 0.01, &pool);
    ASSERT_TRUE(factor && parallel);
    const InputFactor& f = **factor;
    EXPECT_EQ(f.padded() % 128, 0U);
    const auto element = [](const InputFactor& of, std::size_t j, std::size_t k) {
      return j / InputFactor::kStride > k / InputFactor::kStride ? 0.0F : *of.at(j, k);
    };
    double mean = 0;
    for (std::size_t i = 0; i < cols; ++i) mean += stats.second_moment[i * cols + i];
    mean /= static_cast<double>(cols);
    for (std::size_t i = 0; i < f.padded(); ++i)
      for (std::size_t j = 0; j < f.padded(); ++j) {
        if (j < i || i >= cols || j >= cols) {
          ASSERT_EQ(element(f, i, j), 0.0F);
        }
        ASSERT_EQ(element(f, i, j), element(**parallel, i, j));
        double sum = 0;
        for (std::size_t k = 0; k < f.padded(); ++k)
          sum += double{element(f, i, k)} * element(f, j, k);
        double want = i == j && i < cols ? 0.01 : 0;
        if (i < cols && j < cols) want += stats.second_moment[i * cols + j] / mean;
        ASSERT_NEAR(sum, want, 1e-5 * (1 + want)) << cols << ": " << i << ' ' << j;
      }
  }
}

}  // namespace
}  // namespace moesaic
