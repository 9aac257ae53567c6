#include "common/quantize/ccq.hpp"

#include <array>
#include <cassert>
#include <cmath>
#include <cstring>
#include <memory>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/integer_weight.hpp"
#include "common/quantize/ccq_panel.hpp"

namespace moesaic {
namespace {

constexpr std::array<CodePair, 16> kPairs = {{{121, 950},
                                              {121, 1254},
                                              {120, 1140},
                                              {121, 1311},
                                              {121, 798},
                                              {121, 342},
                                              {120, 1852},
                                              {121, 884},
                                              {121, 399},
                                              {120, 447},
                                              {123, 367},
                                              {123, 304},
                                              {118, 1704},
                                              {119, 1500},
                                              {123, 56},
                                              {125, 400}}};

/// Even groups stand in the high nibble.
int local_scale(const Ccq2View& w, std::size_t group, std::size_t column) {
  const int both = w.weight_scale[group / 2 * w.n + column];
  return group % 2 == 0 ? both >> 4 : both & 15;
}

float super_of(std::span<const Bf16> scales, std::size_t column) {
  return scales.empty() ? 1.0F : bf16_to_f32(scales[column]);
}

Result<void> check_size(const char* name, std::size_t got, std::size_t want) {
  if (got == want) return {};
  return fail(Errc::kShapeMismatch, std::string(name) + ": " + std::to_string(got) + " elements, " +
                                        std::to_string(want) + " expected");
}

Result<void> check_super_scales(std::span<const Bf16> scales) {
  for (std::size_t n = 0; n < scales.size(); ++n)
    if (const float super = bf16_to_f32(scales[n]); !std::isfinite(super))
      return fail(Errc::kCorrupt,
                  "super_scales: column " + std::to_string(n) + " is " + std::to_string(super));
  return {};
}

/// Copies columns of the file to rows of panels.
PackedMatrix pack(const Ccq2View& w, PackedMatrix shape) {
  auto memory = std::make_shared<AlignedBuffer>(shape.bytes());
  for (std::size_t p = 0; p < shape.panels(); ++p) {
    const Ccq2Panel panel(memory->data() + p * shape.panel_bytes());
    for (std::size_t row = 0; row < 32; ++row) {
      const std::size_t n = stored_column(w.n, shape.gate_up, p, row);
      if (n >= w.n) {
        panel.set_head(row, 0, CodePair{});
        continue;
      }
      panel.set_head(row, super_of(w.super_scales, n), w.code_scale[n], w.code_zp[n]);
      for (std::size_t g = 0; g < w.k / 64; ++g)
        panel.local(g, row) = static_cast<std::uint8_t>(local_scale(w, g, n));
      for (std::size_t r = 0; r < w.k / 4; ++r) panel.word(r, row) = w.quant_weight[r * w.n + n];
    }
  }
  shape.data = memory->data();
  shape.owner = std::move(memory);
  return shape;
}

Result<PackedMatrix> shape_of(const Ccq2View& w, std::size_t rows, std::size_t cols) {
  MOESAIC_CHECK(check(w));
  if (cols > w.k || padded_cols(WeightFormat::kCcq2, cols) < w.k)
    return fail(Errc::kShapeMismatch, "quant_weight: K " + std::to_string(w.k) + " for " +
                                          std::to_string(cols) + " input features");
  PackedMatrix shape;
  shape.format = WeightFormat::kCcq2;
  shape.rows = rows;
  shape.cols = cols;
  return shape;
}

template <class Word>
Result<PackedMatrix> pack_units(const CcqTensors<Word>& w, std::size_t cols) {
  using Units = CcqUnits<Word>;
  if (w.k % 64 != 0 || cols > w.k || cols + 64 <= w.k)
    return fail(Errc::kShapeMismatch, "quant_weight: K " + std::to_string(w.k) + " for " +
                                          std::to_string(cols) + " input features");
  MOESAIC_CHECK(
      check_size("quant_weight", w.quant_weight.size(), w.k / 64 * Units::kOfGroup * w.n));
  MOESAIC_CHECK(check_size("super_scales", w.super_scales.size(), w.n));
  MOESAIC_CHECK(check_super_scales(w.super_scales));
  PackedMatrix packed;
  packed.format = Units::kFormat;
  packed.rows = w.n;
  packed.cols = cols;
  auto memory = std::make_shared<AlignedBuffer>(packed.bytes());
  for (std::size_t n = 0; n < w.n; ++n) {
    std::byte* panel = memory->data() + n / 32 * packed.panel_bytes();
    const float super = bf16_to_f32(w.super_scales[n]);
    std::memcpy(panel + 4 * (n % 32), &super, sizeof super);
    for (std::size_t i = 0; i < w.k / 64 * Units::kOfGroup; ++i)
      std::memcpy(panel + ccq_unit_offset<Word>(i / Units::kOfGroup, i % Units::kOfGroup, n % 32),
                  &w.quant_weight[i * w.n + n], sizeof(Word));
  }
  packed.data = memory->data();
  packed.owner = std::move(memory);
  return packed;
}

template <class Word>
CcqTensors<Word> unpack_units(const PackedMatrix& w) {
  using Units = CcqUnits<Word>;
  assert(w.format == Units::kFormat);
  CcqTensors<Word> t;
  t.k = w.padded_cols();
  t.n = w.gate_up ? 2 * w.rows : w.rows;
  t.quant_weight.resize(t.k / 64 * Units::kOfGroup * t.n);
  t.super_scales.resize(t.n);
  for (std::size_t p = 0; p < w.panels(); ++p)
    for (std::size_t row = 0; row < 32; ++row) {
      const std::size_t n = stored_column(t.n, w.gate_up, p, row);
      if (n >= t.n) continue;
      t.super_scales[n] = f32_to_bf16(row_scale(w, p, row));
      const std::byte* panel = w.data + p * w.panel_bytes();
      for (std::size_t i = 0; i < t.k / 64 * Units::kOfGroup; ++i)
        std::memcpy(&t.quant_weight[i * t.n + n],
                    panel + ccq_unit_offset<Word>(i / Units::kOfGroup, i % Units::kOfGroup, row),
                    sizeof(Word));
    }
  return t;
}

}  // namespace

std::span<const CodePair> ccq2_code_pairs() { return kPairs; }

void ccq2_levels(std::int32_t code, std::uint8_t levels[4]) {
  for (int j = 0; j < 4; ++j) levels[j] = static_cast<std::uint8_t>(code >> (9 - 3 * j) & 63);
}

void ccq25_levels(std::uint16_t word, std::uint8_t levels[7]) {
  constexpr int kShifts[7] = {13, 11, 9, 6, 4, 2, 0};
  for (int j = 0; j < 7; ++j) levels[j] = static_cast<std::uint8_t>(word >> kShifts[j] & 7);
}

void ccq275_levels(std::uint8_t byte, std::uint8_t levels[3]) {
  for (int j = 0; j < 3; ++j) levels[j] = static_cast<std::uint8_t>(byte >> (4 - 2 * j) & 15);
}

Result<void> check(const Ccq2View& w) {
  if (w.k % 64 != 0)
    return fail(Errc::kShapeMismatch,
                "quant_weight: K " + std::to_string(w.k) + " is not a multiple of 64");
  MOESAIC_CHECK(check_size("quant_weight", w.quant_weight.size(), w.k / 4 * w.n));
  MOESAIC_CHECK(check_size("weight_scale", w.weight_scale.size(), (w.k + 127) / 128 * w.n));
  if (!w.super_scales.empty())
    MOESAIC_CHECK(check_size("super_scales", w.super_scales.size(), w.n));
  MOESAIC_CHECK(check_size("code_scale", w.code_scale.size(), w.n));
  MOESAIC_CHECK(check_size("code_zp", w.code_zp.size(), w.n));
  MOESAIC_CHECK(check_super_scales(w.super_scales));
  for (std::size_t n = 0; n < w.n; ++n) {
    // A sum is monotone in the byte: the two ends bound it.
    const float ends[2] = {w.code_zp[n], 255 * w.code_scale[n] + w.code_zp[n]};
    for (const float end : ends)
      if (!(std::fabs(end) < 0x1p30F))
        return fail(Errc::kCorrupt, "code_scale, code_zp: column " + std::to_string(n) + ": " +
                                        std::to_string(w.code_scale[n]) + ", " +
                                        std::to_string(w.code_zp[n]) + " give no codes");
  }
  return {};
}

void decode(const Ccq2View& w, std::span<float> out) {
  assert(out.size() == w.k * w.n);
  for (std::size_t r = 0; r < w.k / 4; ++r)
    for (std::size_t n = 0; n < w.n; ++n) {
      std::uint8_t levels[4];
      ccq2_levels(ccq2_code(w.quant_weight[r * w.n + n], w.code_scale[n], w.code_zp[n]), levels);
      const float scale =
          static_cast<float>(local_scale(w, r / 16, n)) * super_of(w.super_scales, n);
      for (std::size_t j = 0; j < 4; ++j)
        out[(4 * r + j) * w.n + n] = static_cast<float>(levels[j] - 32) * scale;
    }
}

void decode(const Ccq25Tensors& w, std::span<float> out) {
  assert(out.size() == w.k * w.n);
  for (std::size_t g = 0; g < w.k / 64; ++g)
    for (std::size_t n = 0; n < w.n; ++n) {
      const std::uint16_t tail = w.quant_weight[(10 * g + 9) * w.n + n];
      const float scale = static_cast<float>(tail & 0x1fff) * bf16_to_f32(w.super_scales[n]);
      float* column = out.data() + 64 * g * w.n + n;
      for (std::size_t i = 0; i < 9; ++i) {
        std::uint8_t levels[7];
        ccq25_levels(w.quant_weight[(10 * g + i) * w.n + n], levels);
        for (std::size_t j = 0; j < 7; ++j)
          column[(7 * i + j) * w.n] = static_cast<float>(levels[j] - 4) * scale;
      }
      column[63 * w.n] = static_cast<float>((tail >> 13) - 4) * scale;
    }
}

void decode(const Ccq275Tensors& w, std::span<float> out) {
  assert(out.size() == w.k * w.n);
  for (std::size_t g = 0; g < w.k / 64; ++g)
    for (std::size_t n = 0; n < w.n; ++n) {
      const std::uint8_t tail = w.quant_weight[(22 * g + 21) * w.n + n];
      const float scale = static_cast<float>(tail & 15) * bf16_to_f32(w.super_scales[n]);
      float* column = out.data() + 64 * g * w.n + n;
      for (std::size_t i = 0; i < 21; ++i) {
        std::uint8_t levels[3];
        ccq275_levels(w.quant_weight[(22 * g + i) * w.n + n], levels);
        for (std::size_t j = 0; j < 3; ++j)
          column[(3 * i + j) * w.n] = static_cast<float>(levels[j] - 8) * scale;
      }
      column[63 * w.n] = static_cast<float>((tail >> 4) - 8) * scale;
    }
}

std::vector<std::size_t> columns_that_fusing_changes(const Ccq2View& w) {
  std::vector<std::size_t> columns;
  for (std::size_t n = 0; n < w.n; ++n)
    for (int b = 0; b < 256; ++b) {
      const float fused = std::fma(static_cast<float>(b), w.code_scale[n], w.code_zp[n]);
      const auto code = static_cast<std::int32_t>(std::floor(fused + 0.5F));
      const auto byte = static_cast<std::uint8_t>(b);
      if (code == ccq2_code(byte, w.code_scale[n], w.code_zp[n])) continue;
      columns.push_back(n);
      break;
    }
  return columns;
}

Result<PackedMatrix> pack_ccq2(const Ccq2View& w, std::size_t cols) {
  MOESAIC_TRY(PackedMatrix shape, shape_of(w, w.n, cols));
  return pack(w, shape);
}

Result<PackedMatrix> pack_ccq2_gate_up(const Ccq2View& w, std::size_t cols) {
  if (w.n % 2 != 0)
    return fail(Errc::kShapeMismatch,
                "up_gate_proj: " + std::to_string(w.n) + " columns are not two halves");
  MOESAIC_TRY(PackedMatrix shape, shape_of(w, w.n / 2, cols));
  shape.gate_up = true;
  return pack(w, shape);
}

Ccq2Tensors unpack_ccq2(const PackedMatrix& w) {
  assert(w.format == WeightFormat::kCcq2);
  Ccq2Tensors t;
  t.k = w.padded_cols();
  t.n = w.gate_up ? 2 * w.rows : w.rows;
  t.quant_weight.resize(t.k / 4 * t.n);
  t.weight_scale.resize(t.k / 128 * t.n);
  t.super_scales.resize(t.n);
  t.code_scale.resize(t.n);
  t.code_zp.resize(t.n);
  for (std::size_t n = 0; n < t.n; ++n) {
    const std::size_t r = w.gate_up ? n % w.rows : n;
    const std::size_t row = w.gate_up ? n / w.rows * 16 + r % 16 : r % 32;
    const ConstCcq2Panel panel(w.data + (w.gate_up ? r / 16 : r / 32) * w.panel_bytes());
    t.super_scales[n] = f32_to_bf16(panel.head(0, row));
    t.code_scale[n] = panel.head(1, row);
    t.code_zp[n] = panel.head(2, row);
    for (std::size_t g = 0; g < t.k / 64; g += 2)
      t.weight_scale[g / 2 * t.n + n] =
          static_cast<std::uint8_t>(panel.local(g, row) << 4 | panel.local(g + 1, row));
    for (std::size_t q = 0; q < t.k / 4; ++q) t.quant_weight[q * t.n + n] = panel.word(q, row);
  }
  return t;
}

Ccq25Tensors unpack_ccq25(const PackedMatrix& w) { return unpack_units<std::uint16_t>(w); }
Ccq275Tensors unpack_ccq275(const PackedMatrix& w) { return unpack_units<std::uint8_t>(w); }

Result<PackedMatrix> pack_ccq25(const Ccq25Tensors& w, std::size_t cols) {
  return pack_units(w, cols);
}
Result<PackedMatrix> pack_ccq275(const Ccq275Tensors& w, std::size_t cols) {
  return pack_units(w, cols);
}

}  // namespace moesaic
