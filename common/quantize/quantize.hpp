#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/result.hpp"
#include "common/base/thread_pool.hpp"
#include "common/kernels/isa.hpp"
#include "common/kernels/packed_matrix.hpp"
#include "common/quantize/ccq.hpp"
#include "common/quantize/input_factor.hpp"

namespace moesaic {

/// How codes are chosen.
enum class QuantMethod : std::uint8_t {
  kAbsmax,      ///< scales cover the largest magnitude; weights go to the nearest code
  kSearch,      ///< scales with the least squared error of the weights
  kCalibrated,  ///< error feedback, weighted by what the matrix is fed; row scales as kSearch
};

/// What a matrix is fed, from calibration data.
struct InputStatistics {
  std::size_t cols = 0;
  std::vector<float> second_moment;  ///< [cols][cols], E[x x^T]
  std::uint64_t rows = 0;            ///< inputs seen
};

struct QuantSpec {
  WeightFormat format = WeightFormat::kW4r;
  QuantMethod method = QuantMethod::kSearch;
  /// kCcq2: the clusters that each output row may choose from; none: `ccq2_code_pairs()[0]`. One is
  /// profile U, several profile C (0.2 dB for eight); time grows with their number.
  std::span<const CodePair> code_pairs = {};
  /// kCalibrated: what is added to H, in means of its diagonal.
  double damping = 0.01;
  /// kCalibrated: the factor of the statistics, where it is made once for several matrices or for
  /// pieces of one; null: it is made of `stats` with `damping`.
  std::shared_ptr<const InputFactor> inputs = nullptr;
  /// Level of the encoders that have levels. Changes their speed, never a byte.
  Isa isa = active_isa();
};

/// Encodes W [rows, cols] of any element type and strides into the panels of a format; kBf16 and
/// kF32 are packed as `pack_matrix` does. kW8r is kAbsmax under kSearch, too, and CCQ always
/// searches. The same bytes on every machine and for any number of threads. Rows so small that
/// scales would be denormal (below 2^-110 or less) become zeros.
/// @param stats for kCalibrated without `spec.inputs`: of the rows that the matrix multiplies; else
///              ignored
/// @param pool  null: on the calling thread
/// @errors kInvalidArgument: a weight is not finite (the first: row, column and value), kCalibrated
/// without statistics, a code pair beyond 15 bits, those of `InputFactor::make`; kShapeMismatch:
/// inputs of another width
/// @source layouts and rules: kernels.md 3; CCQ and kCalibrated: quantization.md 6
[[nodiscard]] Result<PackedMatrix> quantize_matrix(const MatrixView& w, const QuantSpec& spec,
                                                   const InputStatistics* stats, ThreadPool* pool);

/// The same of gate and up (equal shapes), interleaved.
[[nodiscard]] Result<PackedMatrix> quantize_gate_up(const MatrixView& gate, const MatrixView& up,
                                                    const QuantSpec& spec,
                                                    const InputStatistics* stats, ThreadPool* pool);

}  // namespace moesaic
