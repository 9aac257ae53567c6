#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/tensor/bf16.hpp"

namespace moesaic {

/// Precision of a component, and the form of rows of values.
///   kF32:  no bf16 rounding of values anywhere, KV f32
///   kBf16: operands of matrix products and the KV cache are bf16, sums f32
///   kInt:  quantised weights, int8 operands with a scale per block, exact int32 sums, KV int8 by
///          default. What a norm leaves is rounded to bf16 and what the experts' tree adds too, as
///          in kBf16; other values stay f32 up to the quantiser.
enum class Compute : std::uint8_t { kF32, kBf16, kInt };

constexpr std::size_t operand_bytes(Compute form) {
  return form == Compute::kF32 ? 4 : form == Compute::kBf16 ? 2 : 1;
}

/// Form in which a norm leaves its rows in a mode.
constexpr Compute normed_form(Compute mode) {
  return mode == Compute::kF32 ? Compute::kF32 : Compute::kBf16;
}
/// True if norms and the additions of the expert tree round to bf16 in a mode.
constexpr bool rounds_to_bf16(Compute mode) { return mode != Compute::kF32; }

/// Rows as matrix products read them: f32 (kF32), Bf16 (kBf16) or int8 with block scales (kInt),
/// row-major, rows `stride` elements apart. Not owning.
struct Operand {
  Compute compute = Compute::kF32;
  const void* data = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;           ///< real K
  std::size_t stride = 0;         ///< elements between rows, >= cols (kInt: >= padded K)
  const float* scales = nullptr;  ///< kInt: [rows][padded K / block]
  std::size_t block = 0;          ///< kInt: columns that share a scale

  const float* f32(std::size_t row) const { return static_cast<const float*>(data) + row * stride; }
  const Bf16* bf16(std::size_t row) const { return static_cast<const Bf16*>(data) + row * stride; }
  const std::int8_t* int8(std::size_t row) const {
    return static_cast<const std::int8_t*>(data) + row * stride;
  }
  /// Of any form.
  const void* row(std::size_t r) const {
    return static_cast<const std::byte*>(data) + r * stride * operand_bytes(compute);
  }
};

/// The same, to be written.
struct OperandOut {
  Compute compute = Compute::kF32;
  void* data = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;
  std::size_t stride = 0;

  float* f32(std::size_t row) const { return static_cast<float*>(data) + row * stride; }
  Bf16* bf16(std::size_t row) const { return static_cast<Bf16*>(data) + row * stride; }
  /// Of any form.
  void* row(std::size_t r) const {
    return static_cast<std::byte*>(data) + r * stride * operand_bytes(compute);
  }
  Operand view() const { return {compute, data, rows, cols, stride}; }
};

}  // namespace moesaic
