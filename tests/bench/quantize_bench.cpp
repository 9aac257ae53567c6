// Encoders of quantised formats in weights a second, and what calibration adds: the triangular
// factor of a matrix's inputs, in multiply-adds a second. One thread.
//   quantize_bench [--benchmark_filter=...]
#include <benchmark/benchmark.h>

#include <cmath>
#include <vector>

#include "common/quantize/quantize.hpp"

namespace moesaic {
namespace {

/// Inputs whose neighbours are alike, AR(1) with 0.8, about a mean.
InputStatistics neighbours_alike(std::size_t cols) {
  InputStatistics stats{cols, std::vector<float>(cols * cols), 4096};
  for (std::size_t i = 0; i < cols; ++i)
    for (std::size_t j = 0; j < cols; ++j)
      stats.second_moment[i * cols + j] = static_cast<float>(
          0.2 + std::pow(0.8, std::fabs(static_cast<double>(i) - static_cast<double>(j))));
  return stats;
}

void factor(benchmark::State& state) {
  const auto cols = static_cast<std::size_t>(state.range(0));
  const auto stats = neighbours_alike(cols);
  for (auto _ : state)
    if (!InputFactor::make(stats, 0.01, nullptr)) state.SkipWithError("no factor");
  const double k = static_cast<double>(cols);
  state.counters["mac/s"] =
      benchmark::Counter(k * k * k / 6, benchmark::Counter::kIsIterationInvariantRate);
}

void encode(benchmark::State& state, WeightFormat format, QuantMethod method) {
  const auto rows = static_cast<std::size_t>(state.range(0));
  const auto cols = static_cast<std::size_t>(state.range(1));
  std::vector<float> w(rows * cols);
  for (std::size_t i = 0; i < w.size(); ++i)
    w[i] = static_cast<float>(std::sin(static_cast<double>(i * i % 9973)));
  const MatrixView view{reinterpret_cast<const std::byte*>(w.data()),
                        DType::kF32,
                        rows,
                        cols,
                        static_cast<std::ptrdiff_t>(cols),
                        1};
  QuantSpec spec{format, method};
  if (method == QuantMethod::kCalibrated)
    spec.inputs = InputFactor::make(neighbours_alike(cols), 0.01, nullptr).value();
  for (auto _ : state)
    if (!quantize_matrix(view, spec, nullptr, nullptr)) state.SkipWithError("not encoded");
  state.counters["weights/s"] = benchmark::Counter(static_cast<double>(w.size()),
                                                   benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(factor)->Arg(512)->Arg(1536)->Arg(2560)->Unit(benchmark::kMillisecond);

// An expert's matrices of the 28B model, a part of their rows.
void shapes(benchmark::internal::Benchmark* b) {
  b->Args({256, 2560})->Args({256, 1536})->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(encode, w8_calibrated, WeightFormat::kW8r, QuantMethod::kCalibrated)
    ->Apply(shapes);
BENCHMARK_CAPTURE(encode, w4_absmax, WeightFormat::kW4r, QuantMethod::kAbsmax)->Apply(shapes);
BENCHMARK_CAPTURE(encode, w4_search, WeightFormat::kW4r, QuantMethod::kSearch)->Apply(shapes);
BENCHMARK_CAPTURE(encode, w4_calibrated, WeightFormat::kW4r, QuantMethod::kCalibrated)
    ->Apply(shapes);
BENCHMARK_CAPTURE(encode, ccq2_search, WeightFormat::kCcq2, QuantMethod::kSearch)->Apply(shapes);
BENCHMARK_CAPTURE(encode, ccq2_calibrated, WeightFormat::kCcq2, QuantMethod::kCalibrated)
    ->Apply(shapes);

}  // namespace
}  // namespace moesaic

BENCHMARK_MAIN();
