#pragma once

#include <cstdint>
#include <vector>

#include "common/base/result.hpp"
#include "common/base/thread_pool.hpp"
#include "common/kernels/packed_matrix.hpp"

namespace moesaic {

/// How codes are chosen.
enum class QuantMethod : std::uint8_t {
  kAbsmax,      ///< scales cover the largest magnitude; weights go to the nearest code
  kSearch,      ///< scales with the least squared error of the weights
  kCalibrated,  ///< error feedback, weighted by what the matrix is fed
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
};

/// Encodes W [rows, cols] of any element type and strides into the panels of a format; kBf16 and
/// kF32 are packed as `pack_matrix` does. The same bytes on every machine and for any number of
/// threads.
/// @param stats for kCalibrated: of the rows that the matrix multiplies; else ignored
/// @param pool  null: on the calling thread
/// @errors kInvalidArgument: a weight is not finite (row, column and value); kShapeMismatch: stats
/// of another width; kUnsupported: a method the format has not
[[nodiscard]] Result<PackedMatrix> quantize_matrix(const MatrixView& w, const QuantSpec& spec,
                                                   const InputStatistics* stats, ThreadPool* pool);

/// The same of gate and up (equal shapes), interleaved.
[[nodiscard]] Result<PackedMatrix> quantize_gate_up(const MatrixView& gate, const MatrixView& up,
                                                    const QuantSpec& spec,
                                                    const InputStatistics* stats, ThreadPool* pool);

}  // namespace moesaic
