#pragma once

#include <span>

#include "common/base/result.hpp"
#include "common/base/thread_pool.hpp"
#include "common/quantize/ccq.hpp"
#include "common/tensor/view.hpp"

namespace moesaic {

/// Encoders into the published file layouts, by squared error. W is [N][K] as everywhere here (give
/// a stored [K, N] as its transposed view); the tensors have K padded with zeros to 128 (CCQ-2) or
/// 64. Integral code constants, bf16 super scales: any reader decodes the same weights. (With
/// calibration: `unpack_ccq2(quantize_matrix(..))` and the like.)
/// @param pairs as QuantSpec::code_pairs
/// @param pool  null: on the calling thread
/// @errors those of `quantize_matrix`
[[nodiscard]] Result<Ccq2Tensors> encode_ccq2(const MatrixView& w, std::span<const CodePair> pairs,
                                              ThreadPool* pool);
[[nodiscard]] Result<Ccq25Tensors> encode_ccq25(const MatrixView& w, ThreadPool* pool);
[[nodiscard]] Result<Ccq275Tensors> encode_ccq275(const MatrixView& w, ThreadPool* pool);

}  // namespace moesaic
