#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/engine/model_loader.hpp"

namespace moesaic {

/// What to measure.
struct BenchOptions {
  std::vector<std::size_t> batches{1};     ///< decode
  std::vector<std::size_t> contexts{128};  ///< tokens in the cache before a decode step
  std::vector<std::size_t> prefills{512};  ///< prompt lengths
  std::vector<std::size_t> images{336};    ///< side of a square image, pixels
  std::size_t passes = 9;                  ///< of each decode test; others take a third
};

/// One row of the report. Shares are medians over passes, each paired with a measurement of the
/// ceiling right after it.
struct BenchResult {
  std::string test;  ///< decode, prefill, vision, load
  std::size_t batch = 1;
  std::size_t context = 0;
  double tokens_per_second = 0;
  double bytes_per_step = 0;  ///< weights and cache read, 1e9 = 1 GB
  double gops_per_step = 0;   ///< a multiply-add is two
  double seconds_per_step = 0;
  std::optional<double> read_share;  ///< of the plain read bandwidth of the same run
  std::optional<double> peak_share;  ///< of the multiply-add peak of the level used
};

struct BenchReport {
  std::string cpu, isa;
  unsigned threads = 0;
  std::uint32_t layers = 0;  ///< measured
  double read_gbs = 0;       ///< median of the plain reads
  double peak_gops = 0;
  std::vector<BenchResult> results;
};

/// Runs all tests; minutes for a big model. Progress goes to standard error on a terminal.
[[nodiscard]] Result<BenchReport> run_bench(const LoadedModel& model, double load_seconds,
                                            const BenchOptions& options);

/// As many leading layers as fit in three quarters of the available memory, at least two.
std::uint32_t layers_that_fit(const ModelConfig& config);

}  // namespace moesaic
