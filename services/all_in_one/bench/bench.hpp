#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/engine/model_loader.hpp"

namespace moesaic {

/// What to measure. Contexts and prompts beyond the model's context are left out.
struct BenchOptions {
  std::vector<std::size_t> batches{1, 4, 8, 16};              ///< decode, at the first context
  std::vector<std::size_t> contexts{128, 1024, 8192, 32768};  ///< tokens in the cache; batch 1
  std::vector<std::size_t> prefills{128, 512, 2048};          ///< prompt lengths
  std::vector<std::size_t> images{336, 1000};                 ///< side of a square image, pixels
  std::size_t long_context = 131072;  ///< one row that decodes 32 tokens; 0: none
  std::size_t long_prefill = 8192;    ///< a prompt that is timed once; 0: none
  std::size_t prefill_chunk = 2048;   ///< tokens of a step
  std::size_t passes = 9;             ///< of each decode test; others take a third
  std::optional<Compute> kv;          ///< type of the cache; none: the model's mode
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
  /// Of the multiply-add peak of the level used; where products of two types take part (a vision
  /// tower in 8 bits), the time at the peak of each over the time taken.
  std::optional<double> peak_share;
  std::optional<double> disk_share;  ///< of the rate of direct reads of the same files
};

struct BenchReport {
  std::string cpu, isa, model, format;
  std::vector<std::string> features;  ///< levels this CPU has
  unsigned threads = 0;
  std::uint32_t layers = 0;  ///< measured
  double parameters = 0;
  double model_bytes = 0;
  double read_gbs = 0;   ///< median of the plain reads
  double peak_gops = 0;  ///< of the text side
  double vision_peak_gops = 0;
  double disk_gbs = 0;     ///< 0: not measured
  double peak_memory = 0;  ///< most resident, mapped files included; bytes
  std::vector<BenchResult> results;
};

/// What loading took, measured by the caller.
struct BenchLoad {
  double seconds = 0;
  double bytes = 0;      ///< of the files
  double disk_rate = 0;  ///< bytes a second of direct reads; 0: not measured
};

/// Runs all tests; minutes for a big model.
/// @param progress called with what comes next
[[nodiscard]] Result<BenchReport> run_bench(
    const LoadedModel& model, const BenchLoad& load, const BenchOptions& options,
    const std::function<void(const std::string&)>& progress);

/// As many leading layers as fit in three quarters of the available memory in bf16, at least two.
std::uint32_t layers_that_fit(const ModelConfig& config);

}  // namespace moesaic
