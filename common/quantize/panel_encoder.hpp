#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "common/quantize/ccq_encoder.hpp"
#include "common/quantize/panel_rows.hpp"
#include "common/quantize/quantize.hpp"

namespace moesaic {

/// A row of a panel that cannot be encoded, and why.
struct BadRow {
  std::size_t row = 0;
  Error error;
};

/// Encodes the panels of one matrix as a QuantSpec says. Const and thread-safe; the arguments
/// outlive it.
class PanelEncoder {
 public:
  /// @param shape  format and sizes of the result; an integer format
  /// @param inputs of kCalibrated, else null
  PanelEncoder(const PanelRows& rows, const QuantSpec& spec, const PackedMatrix& shape,
               const InputFactor* inputs);

  /// Every byte of a panel, or the first row that is bad.
  std::optional<BadRow> encode(std::size_t panel, std::byte* out) const;

 private:
  std::optional<BadRow> encode_rows(std::size_t panel, std::byte* out) const;
  void encode_panel_w8r(const std::array<PanelRows::HalfPanel, 2>& rows, std::byte* out) const;
  void encode_panel_w4r(const std::array<PanelRows::HalfPanel, 2>& rows, std::byte* out) const;
  void encode_ccq(const PanelRows::HalfPanel& rows, std::size_t half, std::byte* out) const;

  const PanelRows& rows_;
  const QuantSpec& spec_;
  const PackedMatrix& shape_;
  const InputFactor* inputs_;
  std::vector<CodePair> pairs_;       ///< kCcq2
  std::vector<CcqEncoder> encoders_;  ///< kCcq2: one a pair; kCcq25, kCcq275: one
};

}  // namespace moesaic
