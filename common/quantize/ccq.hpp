#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/kernels/packed_matrix.hpp"
#include "common/tensor/bf16.hpp"

// CCQ, "convolutional code quantization": the published file layouts of 2, 2.5 and 2.75 bit. All
// codes run down a column of [K, N], y = x W, so N counts output features; panels and MatrixView
// have the same matrix as [N][K]. Source of every layout here: quantization.md 3 to 5.
namespace moesaic {

/// Code cluster of CCQ-2: code = byte * scale + zero.
struct CodePair {
  int scale = 121;
  int zero = 950;
  bool operator==(const CodePair&) const = default;
};

/// True if every byte's code has 15 bits: what our encoder may write.
constexpr bool is_valid(CodePair p) {
  return p.scale >= 0 && p.zero >= 0 && 255 * p.scale + p.zero <= 32767;
}

/// Sixteen pairs that fill the space of four weights well, the best first (quantization.md 6.4).
std::span<const CodePair> ccq2_code_pairs();

/// A CCQ-2 matrix as its tensors stand in files. Not owning.
struct Ccq2View {
  std::size_t k = 0;                           ///< a multiple of 64
  std::size_t n = 0;                           ///< output features
  std::span<const std::uint8_t> quant_weight;  ///< [k/4][n]
  std::span<const std::uint8_t> weight_scale;  ///< [ceil(k/128)][n], the even group high
  std::span<const Bf16> super_scales;          ///< [n]; empty: all 1
  std::span<const float> code_scale;           ///< [n]
  std::span<const float> code_zp;              ///< [n]
};

/// The same, owning.
struct Ccq2Tensors {
  std::size_t k = 0;
  std::size_t n = 0;
  std::vector<std::uint8_t> quant_weight, weight_scale;
  std::vector<Bf16> super_scales;
  std::vector<float> code_scale, code_zp;

  Ccq2View view() const {
    return {k, n, quant_weight, weight_scale, super_scales, code_scale, code_zp};
  }
};

/// CCQ-2.5 (Word u16, 10 words a group of 64) and CCQ-2.75 (Word u8, 22).
template <class Word>
struct CcqTensors {
  std::size_t k = 0;  ///< a multiple of 64
  std::size_t n = 0;
  std::vector<Word> quant_weight;  ///< [k/64 * words of a group][n]
  std::vector<Bf16> super_scales;  ///< [n]
};
using Ccq25Tensors = CcqTensors<std::uint16_t>;
using Ccq275Tensors = CcqTensors<std::uint8_t>;

/// Levels of one stored unit, the first weight first.
void ccq2_levels(std::int32_t code, std::uint8_t levels[4]);    ///< 0..63
void ccq25_levels(std::uint16_t word, std::uint8_t levels[7]);  ///< 0..7
void ccq275_levels(std::uint8_t byte, std::uint8_t levels[3]);  ///< 0..15

/// Sizes and constants of tensors from outside.
/// @errors kShapeMismatch: a size, with its name; kCorrupt: code constants that are not finite or
///         give codes beyond 31 bits, with the column
[[nodiscard]] Result<void> check(const Ccq2View& w);

/// Decodes to out[k][n] f32, before the rounding to a model's type: f32(level - 32) * (f32(l) *
/// f32(super)). Codes by the reader rule of quantization.md 3.3.
/// @pre check(w); out.size() == k * n
void decode(const Ccq2View& w, std::span<float> out);
/// @pre sizes as declared; out.size() == k * n
void decode(const Ccq25Tensors& w, std::span<float> out);
void decode(const Ccq275Tensors& w, std::span<float> out);

/// Columns whose code of some byte depends on whether a multiplication and an addition are fused
/// (integral constants never do): foreign files only, and worth a line in the log.
/// @pre check(w)
std::vector<std::size_t> columns_that_fusing_changes(const Ccq2View& w);

/// Published tensors to kernel panels; every integer weight as the reader rule gives it. A last
/// group that makes K only a multiple of 64 gets a neighbour of zeros, and rows are padded to 32.
/// @param cols real K, at most w.k
/// @errors those of `check`; kShapeMismatch: cols > w.k
[[nodiscard]] Result<PackedMatrix> pack_ccq2(const Ccq2View& w, std::size_t cols);

/// The same of a fused up_gate_proj [K, 2 width]: its first half (through SiLU) is gate.
/// @errors also kShapeMismatch: an odd n
[[nodiscard]] Result<PackedMatrix> pack_ccq2_gate_up(const Ccq2View& w, std::size_t cols);

/// Kernel panels back to the file layout, padding rows left out; K is the padded one. Gate/up
/// matrices become the fused [K, 2 width].
/// @pre w.format is kCcq2; super scales are bf16 values (ours and `pack_ccq2`'s are)
Ccq2Tensors unpack_ccq2(const PackedMatrix& w);

/// The same of kCcq25 and kCcq275. Panels hold the units of files as they are.
Ccq25Tensors unpack_ccq25(const PackedMatrix& w);
Ccq275Tensors unpack_ccq275(const PackedMatrix& w);

/// Published tensors of 2.5 and 2.75 bits to kernel panels.
/// @param cols real K, at most w.k and above w.k - 64
/// @errors kShapeMismatch: sizes that disagree; kCorrupt: a super scale that is not finite
[[nodiscard]] Result<PackedMatrix> pack_ccq25(const Ccq25Tensors& w, std::size_t cols);
[[nodiscard]] Result<PackedMatrix> pack_ccq275(const Ccq275Tensors& w, std::size_t cols);

}  // namespace moesaic
