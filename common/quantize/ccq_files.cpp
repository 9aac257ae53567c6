#include "common/quantize/ccq_files.hpp"

#include "common/quantize/quantize.hpp"

namespace moesaic {

Result<Ccq2Tensors> encode_ccq2(const MatrixView& w, std::span<const CodePair> pairs,
                                ThreadPool* pool) {
  const QuantSpec spec{WeightFormat::kCcq2, QuantMethod::kSearch, pairs};
  MOESAIC_TRY(const PackedMatrix packed, quantize_matrix(w, spec, nullptr, pool));
  return unpack_ccq2(packed);
}

Result<Ccq25Tensors> encode_ccq25(const MatrixView& w, ThreadPool* pool) {
  MOESAIC_TRY(const PackedMatrix packed,
              quantize_matrix(w, {WeightFormat::kCcq25, QuantMethod::kSearch}, nullptr, pool));
  return unpack_ccq25(packed);
}

Result<Ccq275Tensors> encode_ccq275(const MatrixView& w, ThreadPool* pool) {
  MOESAIC_TRY(const PackedMatrix packed,
              quantize_matrix(w, {WeightFormat::kCcq275, QuantMethod::kSearch}, nullptr, pool));
  return unpack_ccq275(packed);
}

}  // namespace moesaic
