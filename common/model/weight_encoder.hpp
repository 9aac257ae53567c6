#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "common/base/result.hpp"
#include "common/kernels/packed_matrix.hpp"
#include "common/model/weight_source.hpp"

namespace moesaic {

/// Parts of a model that can be stored in different formats.
enum class Component : std::uint8_t {
  kEmbedding,  ///< the table, and the output matrix if it is tied
  kLmHead,     ///< an output matrix of its own
  kAttention,  ///< QKV and output projection
  kDense,      ///< feed-forward of layers without experts
  kShared,     ///< shared experts
  kTextExperts,
  kVisionExperts,
  kVision,  ///< the tower and the resampler
};
inline constexpr std::array<std::string_view, 8> kComponentNames = {
    "embedding", "lm_head",      "attention",      "dense",
    "shared",    "text_experts", "vision_experts", "vision"};

/// The component that a weight belongs to.
Component component_of(const WeightId& id);

/// How matrices are brought into kernel layout while a model is loaded or packed. Thread-safe.
class WeightEncoder {
 public:
  virtual ~WeightEncoder() = default;
  /// True: matrices that are stored quantised are taken as they are, not encoded again.
  virtual bool keeps_quantized() const = 0;
  /// @param id kQuery for query, key and value, which are stacked
  [[nodiscard]] virtual Result<PackedMatrix> matrix(const WeightId& id,
                                                    const MatrixView& w) const = 0;
  /// @param id of the gate
  [[nodiscard]] virtual Result<PackedMatrix> gate_up(const WeightId& id, const MatrixView& gate,
                                                     const MatrixView& up) const = 0;
};

/// bf16 as it is, or for a mode; kInt leaves what is stored quantised as it is.
class PackingEncoder final : public WeightEncoder {
 public:
  explicit PackingEncoder(Compute compute) : compute_(compute) {}
  bool keeps_quantized() const override { return compute_ == Compute::kInt; }
  Result<PackedMatrix> matrix(const WeightId&, const MatrixView& w) const override {
    return pack_matrix(w, compute_);
  }
  Result<PackedMatrix> gate_up(const WeightId&, const MatrixView& gate,
                               const MatrixView& up) const override {
    return pack_gate_up(gate, up, compute_);
  }

 private:
  Compute compute_;
};

}  // namespace moesaic
