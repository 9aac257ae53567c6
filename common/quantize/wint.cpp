#include "common/quantize/wint.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/quantize/ccq_panel.hpp"
#include "common/quantize/panel_writer.hpp"

namespace moesaic {
namespace {

Result<void> check_size(const char* name, std::size_t got, std::size_t want) {
  if (got == want) return {};
  return fail(Errc::kShapeMismatch, std::string(name) + ": " + std::to_string(got) + " elements, " +
                                        std::to_string(want) + " expected");
}

/// The integers of a column, zeros beyond k.
void read_column(const WintView& w, std::size_t column, std::vector<std::int8_t>& out) {
  for (std::size_t k = 0; k < w.k; ++k) out[k] = static_cast<std::int8_t>(w.at(k, column));
  std::fill(out.begin() + static_cast<std::ptrdiff_t>(w.k), out.end(), std::int8_t{0});
}

}  // namespace

Result<void> check(const WintView& w) {
  assert(w.bits == 8 || w.bits == 4);
  if (w.bits == 4 && w.k % 2 != 0)
    return fail(Errc::kShapeMismatch,
                "quant_weight: " + std::to_string(w.k) + " rows of 4 bits are not pairs");
  MOESAIC_CHECK(
      check_size("quant_weight", w.quant_weight.size(), w.bits == 8 ? w.k * w.n : w.k / 2 * w.n));
  MOESAIC_CHECK(check_size("weight_scale", w.weight_scale.size(), w.n));
  for (std::size_t n = 0; n < w.n; ++n)
    if (!(w.weight_scale[n] >= 0) || !std::isfinite(w.weight_scale[n]))
      return fail(Errc::kCorrupt, "weight_scale: column " + std::to_string(n) + " is " +
                                      std::to_string(w.weight_scale[n]));
  const int lowest = w.bits == 8 ? -128 : -8;
  for (std::size_t k = 0; k < w.k; ++k)
    for (std::size_t n = 0; n < w.n; ++n)
      if (w.at(k, n) == lowest)
        return fail(Errc::kUnsupported, "quant_weight: row " + std::to_string(k) + ", column " +
                                            std::to_string(n) + " is " + std::to_string(lowest) +
                                            ", " + std::to_string(lowest + 1) + " to " +
                                            std::to_string(-lowest - 1) +
                                            " expected: biased or permuted for one kernel?");
  return {};
}

void decode(const WintView& w, std::size_t first, std::size_t count, std::span<float> out) {
  assert(first + count <= w.n && out.size() == count * w.k);
  for (std::size_t k = 0; k < w.k; ++k)
    for (std::size_t c = 0; c < count; ++c)
      out[c * w.k + k] = static_cast<float>(w.at(k, first + c)) * w.weight_scale[first + c];
}

Result<PackedMatrix> pack_wint(const WintView& w, bool gate_up) {
  MOESAIC_CHECK(check(w));
  if (gate_up && w.n % 2 != 0)
    return fail(Errc::kShapeMismatch,
                "up_gate_proj: " + std::to_string(w.n) + " columns are not two halves");
  PackedMatrix packed;
  packed.format = w.bits == 8 ? WeightFormat::kW8r : WeightFormat::kW4r;
  packed.rows = gate_up ? w.n / 2 : w.n;
  packed.cols = w.k;
  packed.gate_up = gate_up;
  const std::size_t padded = packed.padded_cols();
  auto memory = std::make_shared<AlignedBuffer>(packed.bytes());
  std::vector<std::int8_t> integers(padded);
  std::vector<std::uint8_t> codes(padded), mults(padded / 16, 1);
  for (std::size_t p = 0; p < packed.panels(); ++p)
    for (std::size_t row = 0; row < 32; ++row) {
      std::byte* panel = memory->data() + p * packed.panel_bytes();
      const std::size_t n = stored_column(w.n, gate_up, p, row);
      const float scale = n < w.n ? w.weight_scale[n] : 0.0F;
      if (n < w.n)
        read_column(w, n, integers);
      else
        std::fill(integers.begin(), integers.end(), std::int8_t{0});
      if (w.bits == 8) {
        store_w8r(integers.data(), scale, padded, row, panel);
        continue;
      }
      for (std::size_t k = 0; k < padded; ++k)
        codes[k] = static_cast<std::uint8_t>(integers[k] + 8);
      store_w4r({scale, codes.data(), mults.data()}, padded, row, panel);
    }
  packed.data = memory->data();
  packed.owner = std::move(memory);
  return packed;
}

}  // namespace moesaic
