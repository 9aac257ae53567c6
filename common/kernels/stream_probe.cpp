#include "common/kernels/stream_probe.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <vector>

#include "common/kernels/cpu/integer_level.hpp"
#include "common/kernels/linear.hpp"
#include "common/kernels/packed_matrix.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kAreaBytes = std::size_t{192} << 20;
/// Read at a time for one choice.
constexpr std::size_t kPassBytes = std::size_t{8} << 20;
constexpr std::size_t kPasses = 5;
constexpr std::size_t kRows = 1024, kCols = 2560;

/// Products with matrices side by side in an area, one after the other, round and round.
class Reader {
 public:
  explicit Reader(ThreadPool& pool) : pool_(pool), area_(kAreaBytes), x_(kCols, 1.0F), y_(kRows) {
    matrix_.format = WeightFormat::kW4r;
    matrix_.rows = kRows;
    matrix_.cols = kCols;
    std::memset(area_.data(), 1, area_.size());  // pages of its own, not the one of zeros
  }

  /// @return bytes a second
  double read() {
    const Operand x{Compute::kF32, x_.data(), 1, kCols, kCols};
    const std::size_t bytes = matrix_.bytes(), matrices = area_.size() / bytes;
    std::size_t read = 0;
    const auto begun = std::chrono::steady_clock::now();
    for (; read < kPassBytes; read += bytes) {
      matrix_.data = area_.data() + next_++ % matrices * bytes;
      linear(matrix_, x, y_.data(), kRows, nullptr, pool_);
    }
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begun;
    return static_cast<double>(read) / spent.count();
  }

 private:
  ThreadPool& pool_;
  AlignedBuffer area_;
  PackedMatrix matrix_;
  std::vector<float> x_, y_;
  std::size_t next_ = 0;
};

double median(std::array<double, kPasses> values) {
  std::nth_element(values.begin(), values.begin() + kPasses / 2, values.end());
  return values[kPasses / 2];
}

}  // namespace

StreamChoice tune_streams(ThreadPool& pool) {
  Reader reader(pool);
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
