#include "common/quantize/panel_encoder.hpp"

#include <cmath>
#include <cstring>
#include <utility>

#include "common/quantize/ccq_panel.hpp"
#include "common/quantize/feedback.hpp"
#include "common/quantize/panel_writer.hpp"

namespace moesaic {

using namespace quantize_detail;

namespace {

bool is_ccq(WeightFormat format) { return format >= WeightFormat::kCcq2; }

/// One row's words of CCQ-2.5 into its panel.
void store_ccq25(const CcqLanes& lanes, std::size_t i, std::size_t groups, std::size_t row,
                 std::byte* panel) {
  for (std::size_t g = 0; g < groups; ++g) {
    const auto index = [&](std::size_t word) { return lanes.index[(g * 19 + word) * kLanes + i]; };
    for (std::size_t unit = 0; unit < 10; ++unit) {
      const auto word =
          static_cast<std::uint16_t>(unit < 9 ? index(2 * unit) << 9 | index(2 * unit + 1)
                                              : index(18) << 13 | lanes.local[g * kLanes + i]);
      std::memcpy(panel + ccq_unit_offset<std::uint16_t>(g, unit, row), &word, sizeof word);
    }
  }
}

/// The same of CCQ-2.75.
void store_ccq275(const CcqLanes& lanes, std::size_t i, std::size_t groups, std::size_t row,
                  std::byte* panel) {
  for (std::size_t g = 0; g < groups; ++g)
    for (std::size_t unit = 0; unit < 22; ++unit) {
      const auto index = lanes.index[(g * 22 + unit) * kLanes + i];
      const auto byte =
          static_cast<std::uint8_t>(unit < 21 ? index : index << 4 | lanes.local[g * kLanes + i]);
      std::memcpy(panel + ccq_unit_offset<std::uint8_t>(g, unit, row), &byte, sizeof byte);
    }
}

void store_ccq2(const CcqLanes& lanes, std::size_t i, std::size_t groups, std::size_t row,
                const Ccq2Panel& panel) {
  for (std::size_t g = 0; g < groups; ++g)
    panel.local(g, row) = static_cast<std::uint8_t>(lanes.local[g * kLanes + i]);
  for (std::size_t w = 0; w < groups * 16; ++w)
    panel.word(w, row) = static_cast<std::uint8_t>(lanes.index[w * kLanes + i]);
}

}  // namespace

PanelEncoder::PanelEncoder(const PanelRows& rows, const QuantSpec& spec, const PackedMatrix& shape,
                           const InputFactor* inputs)
    : rows_(rows), spec_(spec), shape_(shape), inputs_(inputs) {
  const std::size_t groups = shape.padded_cols() / 64;
  const LaneKernels& kernels = lane_kernels_for(spec.isa);
  if (shape.format == WeightFormat::kCcq25)
    encoders_.emplace_back(ccq25_scheme(), shape.cols, groups, kernels);
  if (shape.format == WeightFormat::kCcq275)
    encoders_.emplace_back(ccq275_scheme(), shape.cols, groups, kernels);
  if (shape.format != WeightFormat::kCcq2) return;
  pairs_.assign(spec.code_pairs.begin(), spec.code_pairs.end());
  if (pairs_.empty()) pairs_.push_back(ccq2_code_pairs().front());
  for (const CodePair pair : pairs_)
    encoders_.emplace_back(ccq2_scheme(pair), shape.cols, groups, kernels);
}

std::optional<BadRow> PanelEncoder::encode(std::size_t panel, std::byte* out) const {
  const bool by_row = shape_.format == WeightFormat::kW8r || spec_.method == QuantMethod::kAbsmax;
  if (by_row && !is_ccq(shape_.format) && inputs_ == nullptr) return encode_rows(panel, out);
  std::array<PanelRows::HalfPanel, 2> halves;
  for (std::size_t h = 0; h < 2; ++h) {
    std::size_t bad = 0;
    auto error = rows_.read_half(panel, h, shape_.padded_cols(), halves[h], bad);
    if (error) return BadRow{bad, std::move(*error)};
  }
  if (shape_.format == WeightFormat::kW8r)
    encode_panel_w8r(halves, out);
  else if (shape_.format == WeightFormat::kW4r)
    encode_panel_w4r(halves, out);
  else
    for (std::size_t h = 0; h < 2; ++h) encode_ccq(halves[h], h, out);
  return std::nullopt;
}

std::optional<BadRow> PanelEncoder::encode_rows(std::size_t panel, std::byte* out) const {
  const std::size_t padded = shape_.padded_cols();
  thread_local std::vector<float> x;
  thread_local std::vector<std::uint8_t> codes, mults;
  x.resize(padded);
  codes.resize(padded);
  mults.resize(padded / 16);
  for (std::size_t row = 0; row < 32; ++row) {
    if (!rows_.read(panel, row, padded, x.data())) std::fill(x.begin(), x.end(), 0.0F);
    if (!std::isfinite(largest_magnitude(x.data(), padded)))
      return BadRow{row, rows_.bad_value(panel, row, x.data())};
    if (shape_.format == WeightFormat::kW8r) {
      float scale = 0;
      auto* const w8 = reinterpret_cast<std::int8_t*>(codes.data());
      encode_w8r(x.data(), padded, scale, w8);
      store_w8r(w8, scale, padded, row, out);
      continue;
    }
    W4rRow encoded{0, codes.data(), mults.data()};
    encode_w4r_absmax(x.data(), padded, encoded);
    store_w4r(encoded, padded, row, out);
  }
  return std::nullopt;
}

void PanelEncoder::encode_panel_w8r(const std::array<PanelRows::HalfPanel, 2>& rows,
                                    std::byte* out) const {
  const std::size_t padded = shape_.padded_cols();
  std::vector<float> x(padded);
  std::vector<std::int8_t> integers(padded);
  std::array<W8rLanes, 2> halves;
  for (std::size_t h = 0; h < 2; ++h)
    for (std::size_t i = 0; i < kLanes; ++i) {
      for (std::size_t k = 0; k < padded; ++k) x[k] = rows[h].x[k][i];
      encode_w8r(x.data(), padded, halves[h].scale[i], integers.data());
    }
  feedback_w8r(std::array{&rows[0].x, &rows[1].x}, padded, *inputs_, lane_kernels_for(spec_.isa),
               halves);
  for (std::size_t h = 0; h < 2; ++h)
    for (std::size_t i = 0; i < kLanes; ++i) {
      for (std::size_t k = 0; k < padded; ++k)
        integers[k] = static_cast<std::int8_t>(halves[h].codes[k][i]);
      store_w8r(integers.data(), times_power(halves[h].scale[i], rows[h].exponent[i]), padded,
                h * kLanes + i, out);
    }
}

void PanelEncoder::encode_panel_w4r(const std::array<PanelRows::HalfPanel, 2>& rows,
                                    std::byte* out) const {
  const std::size_t padded = shape_.padded_cols();
  const LaneKernels& kernels = lane_kernels_for(spec_.isa);
  std::array halves{search_w4r(rows[0].x, padded, kernels), search_w4r(rows[1].x, padded, kernels)};
  if (inputs_ != nullptr)
    feedback_w4r(std::array{&rows[0].x, &rows[1].x}, padded, *inputs_, kernels, halves);
  std::vector<std::uint8_t> codes(padded);
  std::vector<std::uint8_t> mults(padded / 16);
  W4rRow row{0, codes.data(), mults.data()};
  for (std::size_t h = 0; h < 2; ++h)
    for (std::size_t i = 0; i < kLanes; ++i) {
      row.scale = times_power(halves[h].scale[i], rows[h].exponent[i]);
      for (std::size_t k = 0; k < padded; ++k)
        codes[k] = static_cast<std::uint8_t>(static_cast<int>(halves[h].codes[k][i]) + 8);
      for (std::size_t g = 0; g < padded / 16; ++g)
        mults[g] = static_cast<std::uint8_t>(halves[h].mults[g][i]);
      store_w4r(row, padded, h * kLanes + i, out);
    }
}

void PanelEncoder::encode_ccq(const PanelRows::HalfPanel& rows, std::size_t half,
                              std::byte* out) const {
  std::vector<CcqLanes> tried;
  for (const auto& encoder : encoders_)
    tried.push_back(inputs_ != nullptr ? encoder.encode(rows.x, *inputs_) : encoder.encode(rows.x));
  const std::size_t groups = shape_.padded_cols() / 64;
  for (std::size_t i = 0; i < kLanes; ++i) {
    std::size_t best = 0;
    for (std::size_t t = 1; t < tried.size(); ++t)
      if (tried[t].error[i] < tried[best].error[i]) best = t;
    const CcqLanes& lanes = tried[best];
    const std::size_t row = half * kLanes + i;
    const float super = times_power(lanes.super[i], rows.exponent[i]);
    std::memcpy(out + 4 * row, &super, sizeof super);
    if (shape_.format == WeightFormat::kCcq25) {
      store_ccq25(lanes, i, groups, row, out);
    } else if (shape_.format == WeightFormat::kCcq275) {
      store_ccq275(lanes, i, groups, row, out);
    } else {
      const Ccq2Panel panel(out);
      panel.set_head(row, super, pairs_[best]);
      store_ccq2(lanes, i, groups, row, panel);
    }
  }
}

}  // namespace moesaic
