#include "common/kernels/stream_probe.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <vector>

#include "common/kernels/cpu/integer_level.hpp"
#include "common/kernels/linear.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kLeastBytes = std::size_t{64} << 20;
/// Read at a time for one choice.
constexpr std::size_t kPassBytes = std::size_t{8} << 20;
constexpr std::size_t kPasses = 5;

/// Products with the matrices, one after the other, round and round.
class Reader {
 public:
  Reader(std::span<const PackedMatrix> matrices, ThreadPool& pool)
      : matrices_(matrices), pool_(pool) {
    for (const auto& w : matrices) {
      most_cols_ = std::max(most_cols_, w.cols);
      most_rows_ = std::max(most_rows_, w.rows);
    }
    x_.assign(most_cols_, 1.0F);
    y_.resize(most_rows_);
  }

  /// @return bytes a second
  double read() {
    std::size_t bytes = 0;
    const auto begun = std::chrono::steady_clock::now();
    while (bytes < kPassBytes) {
      const auto& w = matrices_[next_++ % matrices_.size()];
      const Operand x{Compute::kF32, x_.data(), 1, w.cols, w.cols};
      linear(w, x, y_.data(), w.rows, nullptr, pool_);
      bytes += w.bytes();
    }
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begun;
    return static_cast<double>(bytes) / spent.count();
  }

 private:
  std::span<const PackedMatrix> matrices_;
  ThreadPool& pool_;
  std::size_t most_cols_ = 0, most_rows_ = 0, next_ = 0;
  std::vector<float> x_, y_;
};

double median(std::array<double, kPasses> values) {
  std::nth_element(values.begin(), values.begin() + kPasses / 2, values.end());
  return values[kPasses / 2];
}

}  // namespace

StreamChoice tune_streams(std::span<const PackedMatrix> matrices, ThreadPool& pool) {
  std::size_t bytes = 0;
  for (const auto& w : matrices) bytes += w.bytes();
  const auto before = cpu::streams();
  if (bytes < kLeastBytes) return {before.panels, before.ahead, 0};

  Reader reader(matrices, pool);
  struct Candidate {
    cpu::Streams streams;
    std::array<double, kPasses> rates;
  };
  std::vector<Candidate> candidates;
  for (const std::size_t panels : {1U, 2U, 4U})
    for (const std::size_t ahead : {1088U, 2176U, 4352U, 6528U})
      candidates.push_back({{panels, ahead}, {}});
  reader.read();
  // Passes take turns: what disturbs the machine for a while disturbs all alike.
  for (std::size_t pass = 0; pass < kPasses; ++pass)
    for (auto& candidate : candidates) {
      cpu::set_streams(candidate.streams);
      candidate.rates[pass] = reader.read();
    }
  const auto best = std::max_element(
      candidates.begin(), candidates.end(),
      [](const auto& a, const auto& b) { return median(a.rates) < median(b.rates); });
  cpu::set_streams(best->streams);
  return {best->streams.panels, best->streams.ahead, median(best->rates) * 1e-9};
}

}  // namespace moesaic
