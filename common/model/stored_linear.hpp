#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/aligned_buffer.hpp"
#include "common/kernels/packed_matrix.hpp"
#include "common/model/checkpoint_files.hpp"
#include "common/model/stored_quantization.hpp"
#include "common/tensor/bf16.hpp"

namespace moesaic {

/// The tensors of a StoredLinear; what its format does not have is null.
struct LinearTensors {
  FileTensor quant_weight, weight_scale, super_scales, code_scale, code_zp;
};

/// A linear y = x W, W [K, N], that a checkpoint stores quantised, as Baidu names its tensors:
///   <base>.quant_weight   WINT8 [K, N], WINT4 [K/2, N], WINT2 [K/4, N]; U8 or I8, the bits count
///   <base>.weight_scale   WINT8, WINT4: [N] or [1, N] floats
///                         WINT2: [ceil(K/128), N] U8 or I8, local scales of two groups a byte
///   <base>.super_scales   (or super_scale) WINT2: [N] or [1, N] BF16; absent: ones
///   <base>.code_scale, <base>.code_zp   WINT2: [N] or [1, N] F32
/// K of WINT2 may be padded with zeros up to a multiple of 128. What kernels of one GPU want (rows
/// permuted, [N, K], values biased) is not this layout and is refused.
/// Copies share the files. Immutable, so thread-safe.
/// @source quantization.md 3.1, 8.2, 9.1
class StoredLinear {
 public:
  /// Finds the tensors and checks names, types and shapes; values are checked when they are read.
  /// @param k, n of the linear, merged columns included
  /// @pre format is not kFloat
  /// @errors kNotFound, kShapeMismatch, kUnsupported (a type; another orientation): the text names
  ///         file, tensor, found and expected
  [[nodiscard]] static Result<StoredLinear> find(const CheckpointFiles& files,
                                                 const std::string& base, StoredFormat format,
                                                 std::size_t k, std::size_t n);

  StoredFormat format() const { return format_; }
  std::size_t columns() const { return n_; }
  /// K as stored: what rows of `decode` have.
  std::size_t stored_k() const { return stored_k_; }
  /// Names of its tensors.
  std::vector<std::string> names() const;
  /// Of all its tensors.
  std::uint64_t bytes() const;

  /// The format of `pack`: kW8r, kW4r or kCcq2.
  WeightFormat packed_format() const;
  /// Panels with the same integers and scales.
  /// @param gate_up the columns are a fused up_gate_proj
  /// @errors kCorrupt, kUnsupported: the text names the linear and the value
  [[nodiscard]] Result<PackedMatrix> pack(bool gate_up) const;
  /// Columns [first, first + count) as weights [count][stored_k()], rounded to bf16.
  /// @errors as `pack`
  [[nodiscard]] Result<AlignedBuffer> decode(std::size_t first, std::size_t count) const;

 private:
  Result<PackedMatrix> pack_wint2(bool gate_up) const;
  Result<void> decode_wint2(std::size_t first, std::size_t count, std::span<Bf16> out) const;
  Result<void> decode_wint(std::size_t first, std::size_t count, std::span<Bf16> out) const;
  std::string where() const;

  std::string base_;
  StoredFormat format_ = StoredFormat::kWint8;
  std::size_t k_ = 0, stored_k_ = 0, n_ = 0;
  LinearTensors tensors_;
  std::string super_name_;
};

}  // namespace moesaic
