#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/base/result.hpp"
#include "common/base/thread_pool.hpp"

namespace moesaic {

struct InputStatistics;

/// The triangular factor of what a matrix is fed: H + damping * mean(diag H) * I = R R^T, R upper
/// triangular. Error feedback needs nothing else: of an error d = w - q,
///   d^T H d = sum over k of (sum over j <= k of R[j][k] d[j])^2,
/// so column k sees the errors before it through R, and a later column cannot repair what stands on
/// the diagonal. (With U^T U = H^-1 of quantization.md 6.5 this is the same recursion.) A whole
/// layer's matrices with the same inputs share one.
class InputFactor {
 public:
  /// @param pool may be null; any number of threads gives the same bits
  /// @errors kInvalidArgument: statistics that are not finite (with the place) or not of a positive
  ///         semidefinite matrix, damping that is not > 0; kShapeMismatch: not cols x cols numbers
  /// Memory: 2 bytes per element of H, 10 while it is made. Time: cols^3 / 3 operations.
  [[nodiscard]] static Result<std::shared_ptr<const InputFactor>> make(const InputStatistics& stats,
                                                                       double damping,
                                                                       ThreadPool* pool);

  std::size_t cols() const { return cols_; }
  /// cols rounded up to 128: rows and columns of R beyond `cols` are zeros.
  std::size_t padded() const { return padded_; }
  /// Columns side by side in memory; an error feedback goes through them one such block at a time.
  static constexpr std::size_t kStride = 64;
  /// R[j][k]. Columns up to the end of k's block follow; R[j + 1][k] is `kStride` further. The
  /// rows of a block, down to the diagonal's, lie one behind the other and are the only ones there.
  /// @pre j < the end of k's block
  const float* at(std::size_t j, std::size_t k) const {
    return r_.as<float>().data() + place(j, k);
  }
  /// [padded] 1 / R[k][k]; 0 beyond `cols`.
  const float* inverse_diagonal() const { return inverse_.data(); }

 private:
  InputFactor() = default;
  static std::size_t place(std::size_t j, std::size_t k) {
    const std::size_t block = k / kStride;
    return (block * (block + 1) / 2 * kStride + j) * kStride + k % kStride;
  }

  std::size_t cols_ = 0;
  std::size_t padded_ = 0;
  AlignedBuffer r_;
  std::vector<float> inverse_;
};

}  // namespace moesaic
