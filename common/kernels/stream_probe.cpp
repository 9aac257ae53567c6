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
constexpr std::size_t kPassBytes = std::size_t{4} << 20;
constexpr std::size_t kPasses = 7;
constexpr std::size_t kOutputs = 1024, kCols = 2560, kSeveralRows = 2;

/// Products with matrices side by side in an area, one after the other, round and round.
class Reader {
 public:
  Reader()
      : pool_(1), area_(kAreaBytes), x_(kSeveralRows * kCols, 1.0F), y_(kSeveralRows * kOutputs) {
    matrix_.format = WeightFormat::kW4r;
    matrix_.rows = kOutputs;
    matrix_.cols = kCols;
    std::memset(area_.data(), 1, area_.size());  // pages of its own, not the one of zeros
  }

  /// @return bytes a second
  double read(std::size_t rows) {
    const Operand x{Compute::kF32, x_.data(), rows, kCols, kCols};
    const std::size_t bytes = matrix_.bytes(), matrices = area_.size() / bytes;
    std::size_t read = 0;
    const auto begun = std::chrono::steady_clock::now();
    for (; read < kPassBytes; read += bytes) {
      matrix_.data = area_.data() + next_++ % matrices * bytes;
      linear(matrix_, x, y_.data(), kOutputs, nullptr, pool_);
    }
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begun;
    return static_cast<double>(read) / spent.count();
  }

 private:
  ThreadPool pool_;
  AlignedBuffer area_;
  PackedMatrix matrix_;
  std::vector<float> x_, y_;
  std::size_t next_ = 0;
};

double median(std::array<double, kPasses> values) {
  std::nth_element(values.begin(), values.begin() + kPasses / 2, values.end());
  return values[kPasses / 2];
}

/// Sets the fastest of `candidates`.
StreamChoice choose(Reader& reader, cpu::StreamsOf of,
                    const std::vector<cpu::Streams>& candidates) {
  const std::size_t rows = of == cpu::StreamsOf::kRow ? 1 : kSeveralRows;
  std::vector<std::array<double, kPasses>> rates(candidates.size());
  reader.read(rows);
  // Passes take turns: what disturbs the machine for a while disturbs all alike.
  for (std::size_t pass = 0; pass < kPasses; ++pass)
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      cpu::set_streams(of, candidates[i]);
      rates[i][pass] = reader.read(rows);
    }
  const auto best = std::max_element(rates.begin(), rates.end(), [](const auto& a, const auto& b) {
    return median(a) < median(b);
  });
  const cpu::Streams chosen = candidates[static_cast<std::size_t>(best - rates.begin())];
  cpu::set_streams(of, chosen);
  return {chosen.panels, chosen.ahead, chosen.into_l2, median(*best) * 1e-9};
}

}  // namespace

StreamChoices tune_streams() {
  Reader reader;
  std::vector<cpu::Streams> of_row = {{1, 0}, {2, 0}, {1, 4352, true}, {2, 4352, true}};
  for (const std::size_t panels : {1U, 2U, 4U})
    for (const std::size_t ahead : {1088U, 2176U, 4352U, 6528U}) of_row.push_back({panels, ahead});
  std::vector<cpu::Streams> of_rows;
  for (const std::size_t panels : {1U, 2U}) {
    for (const std::size_t ahead : {1088U, 2176U, 4352U}) of_rows.push_back({panels, ahead});
    for (const std::size_t ahead : {4352U, 8704U}) of_rows.push_back({panels, ahead, true});
  }
  return {choose(reader, cpu::StreamsOf::kRow, of_row),
          choose(reader, cpu::StreamsOf::kRows, of_rows)};
}

}  // namespace moesaic
