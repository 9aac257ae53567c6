#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/quantize/codebook.hpp"
#include "common/quantize/input_factor.hpp"
#include "common/quantize/lane_array.hpp"

namespace moesaic {

/// Sixteen rows of a matrix in a CCQ format.
struct CcqLanes {
  std::array<float, kLanes> super{};  ///< bf16 values
  std::vector<std::uint16_t> local;   ///< [groups][lanes]
  std::vector<std::uint16_t> index;   ///< [groups * words of a group][lanes]
  /// Plain: squared error less the sum of squares of the weights. Calibrated: error of the
  /// products.
  std::array<double, kLanes> error{};
};

/// The encoder of quantization.md 6.2, 6.3 and 6.5 for one scheme and width; const and thread-safe.
/// Rows come sixteen at a time, transposed, each scaled so that its largest magnitude is in [1, 2)
/// or all zeros. Weights beyond `cols` cost nothing.
class CcqEncoder {
 public:
  /// @param cols real K   @param groups of 64 that cover it, padding included
  CcqEncoder(CcqScheme scheme, std::size_t cols, std::size_t groups, const LaneKernels& kernels);

  /// Least squared error.
  /// @param x [64 groups][lanes], zeros beyond `cols`
  CcqLanes encode(const LaneArray& x) const;

  /// Error feedback: word after word takes the candidate nearest to what the errors so far ask for,
  /// in the metric that the later words cannot repair. Scales come from the plain encoder; local
  /// ones are chosen again when the sweep enters their group.
  CcqLanes encode(const LaneArray& x, const InputFactor& inputs) const;

  const CcqScheme& scheme() const { return scheme_; }
  std::size_t groups() const { return groups_; }

 private:
  /// Adds errors of a group for `count` steps a lane.
  void group_errors(const LaneArray& x, std::size_t group, const LaneArray& steps,
                    std::size_t count, LaneArray& errors) const;
  LaneArray best_steps(const LaneArray& x) const;
  void choose_scales(const LaneArray& x, const LaneArray& best, CcqLanes& out) const;
  void choose_words(const LaneArray& x, CcqLanes& out) const;
  void polish(const LaneArray& x, CcqLanes& out) const;
  const Codebook* book_of(std::size_t group, const WordPlace& place) const;

  CcqScheme scheme_;
  std::vector<Codebook> cut_;  ///< [books][1..3] for words that the last weight cuts
  std::size_t cols_;
  std::size_t groups_;
  const LaneKernels& kernels_;
};

}  // namespace moesaic
