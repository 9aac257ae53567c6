#pragma once

#include <array>
#include <cstddef>
#include <optional>

#include "common/base/result.hpp"
#include "common/quantize/lane_array.hpp"
#include "common/tensor/view.hpp"

namespace moesaic {

/// Rows of W, or of gate and up, as a panel of 32 has them. Not owning.
class PanelRows {
 public:
  /// @param up null: W alone
  PanelRows(const MatrixView& w, const MatrixView* up) : w_(w), up_(up) {}

  std::size_t panels() const { return up_ != nullptr ? (w_.rows + 15) / 16 : (w_.rows + 31) / 32; }

  /// One row of a panel as f32, zero padded. False: beyond the matrix.
  bool read(std::size_t panel, std::size_t row, std::size_t padded, float* out) const;

  /// What is wrong with a row that was read: its first value that is not finite.
  Error bad_value(std::size_t panel, std::size_t row, const float* x) const;

  /// Sixteen rows side by side, each times 2^-exponent, so that its largest magnitude is in [1, 2);
  /// rows of padding, and those below 2^-110, are zeros.
  struct HalfPanel {
    LaneArray x;  ///< [padded][lanes]
    std::array<int, kLanes> exponent{};
    std::array<bool, kLanes> exists{};  ///< false: beyond the matrix
  };
  /// @param half 0 or 1
  /// @param bad  set to the row of the panel where a value is not finite
  std::optional<Error> read_half(std::size_t panel, std::size_t half, std::size_t padded,
                                 HalfPanel& out, std::size_t& bad) const;

 private:
  std::size_t source_row(std::size_t panel, std::size_t row) const {
    return up_ != nullptr ? panel * 16 + row % 16 : panel * 32 + row;
  }
  const char* name(std::size_t row) const {
    return up_ == nullptr ? "" : row < 16 ? "gate " : "up ";
  }

  const MatrixView& w_;
  const MatrixView* up_;
};

/// value * 2^exponent, exact unless it leaves the range of f32.
float times_power(float value, int exponent);

}  // namespace moesaic
