#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "common/base/result.hpp"
#include "common/kernels/packed_matrix.hpp"
#include "common/model/config.hpp"
#include "common/tensor/view.hpp"

namespace moesaic {

/// What a weight is for, independent of how a checkpoint names and stores it.
enum class WeightKind : std::uint8_t {
  kEmbedding,  ///< [vocab, hidden]
  kLmHead,     ///< [vocab, hidden]; only if not tied
  kFinalNorm,  ///< [1, hidden]
  kInputNorm,
  kPostNorm,  ///< [1, hidden], per layer
  kQuery,
  kKey,
  kValue,
  kAttnOut,  ///< [out, in], per layer
  kDenseGate,
  kDenseUp,
  kDenseDown,  ///< dense layers
  kRouter,
  kRouterBias,  ///< [experts, hidden], [1, experts]; per layer, modality
  kExpertGate,
  kExpertUp,
  kExpertDown,  ///< per layer, modality, expert
  kSharedGate,
  kSharedUp,
  kSharedDown,  ///< per layer
  kPatchEmbed,  ///< [vit hidden, 588]
  kVitNorm1,
  kVitNorm1Bias,
  kVitNorm2,
  kVitNorm2Bias,  ///< per block
  kVitQkv,
  kVitQkvBias,
  kVitProj,
  kVitProjBias,
  kVitFc1,
  kVitFc1Bias,
  kVitFc2,
  kVitFc2Bias,
  kVitFinalNorm,
  kVitFinalNormBias,
  kSpatialFc1,
  kSpatialFc1Bias,
  kSpatialFc2,
  kSpatialFc2Bias,
  kSpatialNorm,
  kSpatialNormBias,
  kTemporalFc1,
  kTemporalFc1Bias,
  kTemporalFc2,
  kTemporalFc2Bias,
  kTemporalNorm,
  kTemporalNormBias,
  kResamplerMlp,
  kResamplerMlpBias,
  kResamplerNorm,
};

/// One logical weight. `layer` is the decoder layer or ViT block; `expert` counts within its
/// modality.
struct WeightId {
  WeightKind kind{};
  std::uint32_t layer = 0;
  Modality modality = Modality::kText;
  std::uint32_t expert = 0;
};

/// Where weights come from: a checkpoint in any layout, or the synthetic formula. Thread-safe.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// The weight as a [rows, cols] view (vectors: one row), always oriented [out, in]. The view may
  /// be strided and unaligned.
  /// @errors kNotFound, kShapeMismatch, kUnsupported (type)
  [[nodiscard]] virtual Result<MatrixRef> get(const WeightId& id) const = 0;

  /// The panels' format of a matrix that is stored quantised; none: it is stored as floats. (`get`
  /// gives quantised weights, too, rounded to bf16.)
  virtual std::optional<WeightFormat> packed_format(const WeightId&) const { return std::nullopt; }
  /// Panels with the integers and scales of the store.
  /// @param id kQuery: query, key and value, one below the other; a gate: gate and up, interleaved
  /// @pre packed_format(id)
  /// @errors kCorrupt, kUnsupported: the text names file, matrix and value
  [[nodiscard]] virtual Result<PackedMatrix> packed(const WeightId&) const {
    return fail(Errc::kNotFound, "no weights that are stored quantised");
  }

  /// What was read need not stay in memory: for passes over more weights than memory holds. Views
  /// remain valid.
  virtual void drop_pages() const {}
};

/// Opens a checkpoint directory: model.safetensors, or shards with model.safetensors.index.json;
/// original, transformers-native, "third" or Paddle names, told apart by the names. Under Paddle
/// names linears may be stored quantised, as `ModelConfig::quantization` says (StoredLinear). Every
/// tensor the configuration needs is checked for presence, shape and type before this returns;
/// surplus tensors are errors (a stored lm_head beside a tied table is not).
/// @errors text names tensor, file, expected and found
[[nodiscard]] Result<std::shared_ptr<const WeightSource>> open_checkpoint(
    const std::filesystem::path& dir, const ModelConfig& config);

/// Weights by the fixed formula of the design (section 9): any configuration, no files; each `get`
/// computes its values on `threads` threads.
std::shared_ptr<const WeightSource> synthetic_weights(const ModelConfig& config, unsigned threads);

}  // namespace moesaic
