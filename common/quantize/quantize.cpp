#include "common/quantize/quantize.hpp"

#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <optional>

#include "common/quantize/row_encoder.hpp"

namespace moesaic {
namespace {

using namespace quantize_detail;

/// Rows of W, or of gate and up, as a panel has them.
class PanelRows {
 public:
  PanelRows(const MatrixView& w, const MatrixView* up) : w_(w), up_(up) {}

  /// One row of a panel as f32, zero padded. False: beyond the matrix.
  bool read(std::size_t panel, std::size_t row, std::size_t padded, float* out) const {
    const MatrixView& from = up_ != nullptr && row >= 16 ? *up_ : w_;
    const std::size_t index = source_row(panel, row);
    if (index >= from.rows) return false;
    const auto size = static_cast<std::ptrdiff_t>(dtype_bytes(from.dtype));
    const auto* at = from.data + static_cast<std::ptrdiff_t>(index) * from.row_stride * size;
    if (from.col_stride == 1 && (from.dtype == DType::kBf16 || from.dtype == DType::kU16)) {
      for (std::size_t c = 0; c < from.cols; ++c) {
        Bf16 value;
        std::memcpy(&value, at + c * sizeof value, sizeof value);
        out[c] = bf16_to_f32(value);
      }
    } else {
      for (std::size_t c = 0; c < from.cols; ++c) out[c] = element_f32(from, index, c);
    }
    std::fill(out + from.cols, out + padded, 0.0F);
    return true;
  }
  std::size_t source_row(std::size_t panel, std::size_t row) const {
    return up_ != nullptr ? panel * 16 + row % 16 : panel * 32 + row;
  }
  const char* name(std::size_t row) const {
    return up_ == nullptr ? "" : row < 16 ? "gate " : "up ";
  }

 private:
  const MatrixView& w_;
  const MatrixView* up_;
};

/// Byte of four k of a row among lines of [2 halves][16 rows][4].
std::size_t quad_offset(std::size_t row, std::size_t quad) {
  return quad * 128 + row / 16 * 64 + row % 16 * 4;
}

void store_w8r(const std::int8_t* w8, std::size_t padded, std::size_t row, std::byte* panel) {
  std::byte* values = panel + panel_head(WeightFormat::kW8r);
  for (std::size_t q = 0; q < padded / 4; ++q)
    std::memcpy(values + quad_offset(row, q), w8 + 4 * q, 4);
}

void store_w4r(const W4rRow& encoded, std::size_t padded, std::size_t row, std::byte* panel) {
  std::byte* block = panel + panel_head(WeightFormat::kW4r);
  for (std::size_t b = 0; b < padded / 64; ++b, block += 1088) {
    std::uint16_t mults = 0;
    for (std::size_t j = 0; j < 4; ++j)
      mults = static_cast<std::uint16_t>(mults | encoded.mults[4 * b + j] << (4 * j));
    std::memcpy(block + 2 * row, &mults, 2);
    for (std::size_t octet = 0; octet < 8; ++octet) {
      std::uint32_t quads[2];
      std::memcpy(quads, encoded.codes + 64 * b + 8 * octet, 8);
      const std::uint32_t both = quads[0] | quads[1] << 4;
      std::memcpy(block + 64 + quad_offset(row, octet), &both, 4);
    }
  }
}

/// One panel of a w8r or w4r matrix.
class PanelEncoder {
 public:
  PanelEncoder(const PanelRows& rows, const QuantSpec& spec, const PackedMatrix& w)
      : rows_(rows), spec_(spec), w_(w) {}

  std::optional<Error> encode(std::size_t panel, std::byte* out) const {
    const std::size_t padded = w_.padded_cols();
    thread_local std::vector<float> x;
    thread_local std::vector<std::uint8_t> codes, mults;
    x.resize(padded);
    codes.resize(padded);
    mults.resize(padded / 16);
    for (std::size_t row = 0; row < 32; ++row) {
      if (!rows_.read(panel, row, padded, x.data())) std::fill(x.begin(), x.end(), 0.0F);
      if (!std::isfinite(largest_magnitude(x.data(), padded))) return bad_value(panel, row, x);
      float scale = 0;
      if (spec_.format == WeightFormat::kW8r) {
        auto* const w8 = reinterpret_cast<std::int8_t*>(codes.data());
        encode_w8r(x.data(), padded, scale, w8);
        store_w8r(w8, padded, row, out);
      } else {
        W4rRow encoded{0, codes.data(), mults.data()};
        if (spec_.method == QuantMethod::kAbsmax)
          encode_w4r_absmax(x.data(), padded, encoded);
        else
          encode_w4r_search(x.data(), padded, encoded);
        store_w4r(encoded, padded, row, out);
        scale = encoded.scale;
      }
      std::memcpy(out + 4 * row, &scale, 4);
    }
    return std::nullopt;
  }

 private:
  Error bad_value(std::size_t panel, std::size_t row, const std::vector<float>& x) const {
    std::size_t col = 0;
    while (std::isfinite(x[col])) ++col;
    return {Errc::kInvalidArgument, std::string(rows_.name(row)) + "row " +
                                        std::to_string(rows_.source_row(panel, row)) + ", column " +
                                        std::to_string(col) + ": " + std::to_string(x[col]) +
                                        " is not a weight"};
  }

  const PanelRows& rows_;
  const QuantSpec& spec_;
  const PackedMatrix& w_;
};

Result<PackedMatrix> quantize(const MatrixView& w, const MatrixView* up, const QuantSpec& spec,
                              ThreadPool* pool) {
  if (spec.format != WeightFormat::kW8r && spec.format != WeightFormat::kW4r)
    return fail(Errc::kUnsupported,
                "no encoder for the format " + std::string(format_name(spec.format)));
  if (spec.method == QuantMethod::kCalibrated)
    return fail(Errc::kUnsupported,
                "the method calibrated is not built for " + std::string(format_name(spec.format)));
  PackedMatrix packed;
  packed.format = spec.format;
  packed.rows = w.rows;
  packed.cols = w.cols;
  packed.gate_up = up != nullptr;
  auto memory = std::make_shared<AlignedBuffer>(AlignedBuffer::uninitialized(packed.bytes()));
  const PanelRows rows(w, up);
  const PanelEncoder encoder(rows, spec, packed);
  std::mutex mutex;
  std::optional<Error> error;
  const auto panel = [&](std::size_t p) {
    auto bad = encoder.encode(p, memory->data() + p * packed.panel_bytes());
    if (!bad) return;
    const std::lock_guard lock(mutex);
    if (!error) error = std::move(bad);
  };
  if (pool != nullptr) {
    pool->parallel_for(packed.panels(), panel);
  } else {
    for (std::size_t p = 0; p < packed.panels(); ++p) panel(p);
  }
  if (error) return tl::make_unexpected(std::move(*error));
  packed.data = memory->data();
  packed.owner = std::move(memory);
  return packed;
}

}  // namespace

Result<PackedMatrix> quantize_matrix(const MatrixView& w, const QuantSpec& spec,
                                     const InputStatistics*, ThreadPool* pool) {
  if (!is_integer(spec.format))
    return pack_matrix(w, spec.format == WeightFormat::kF32 ? Compute::kF32 : Compute::kBf16);
  return quantize(w, nullptr, spec, pool);
}

Result<PackedMatrix> quantize_gate_up(const MatrixView& gate, const MatrixView& up,
                                      const QuantSpec& spec, const InputStatistics*,
                                      ThreadPool* pool) {
  if (!is_integer(spec.format))
    return pack_gate_up(gate, up,
                        spec.format == WeightFormat::kF32 ? Compute::kF32 : Compute::kBf16);
  return quantize(gate, &up, spec, pool);
}

}  // namespace moesaic
