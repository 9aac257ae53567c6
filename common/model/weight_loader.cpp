#include "common/model/weight_loader.hpp"

#include <cstring>

#include "common/model/weight_list.hpp"

namespace moesaic {
namespace {

using enum WeightKind;

/// Rows of several matrices one below the other, in memory of its own: f32 unless all have one
/// type.
Tensor stack_rows(std::span<const MatrixRef> parts) {
  auto dtype = parts.front().view.dtype;
  std::size_t rows = 0;
  for (const auto& part : parts) {
    rows += part.view.rows;
    if (part.view.dtype != dtype) dtype = DType::kF32;
  }
  const auto cols = parts.front().view.cols;
  Tensor stacked(dtype, {static_cast<std::int64_t>(rows), static_cast<std::int64_t>(cols)});
  auto* out = stacked.bytes.data();
  const auto size = dtype_bytes(dtype);
  for (const auto& [view, owner] : parts) {
    for (std::size_t r = 0; r < view.rows; ++r, out += cols * size) {
      const auto* row = view.data + static_cast<std::ptrdiff_t>(r) * view.row_stride *
                                        static_cast<std::ptrdiff_t>(dtype_bytes(view.dtype));
      if (view.dtype == dtype && view.col_stride == 1) {
        std::memcpy(out, row, cols * size);
        continue;
      }
      for (std::size_t c = 0; c < cols; ++c) {
        if (view.dtype == dtype) {
          std::memcpy(out + c * size,
                      row + static_cast<std::ptrdiff_t>(c) * view.col_stride *
                                static_cast<std::ptrdiff_t>(size),
                      size);
        } else {
          const auto value = element_f32(view, r, c);
          std::memcpy(out + c * size, &value, size);
        }
      }
    }
  }
  return stacked;
}

MatrixView view_of(const Tensor& tensor) {
  const auto cols = static_cast<std::size_t>(tensor.shape[1]);
  return {tensor.bytes.data(),
          tensor.dtype,
          static_cast<std::size_t>(tensor.shape[0]),
          cols,
          static_cast<std::ptrdiff_t>(cols),
          1};
}

/// For error texts.
std::string name_of(const WeightId& id) {
  const auto component = component_of(id);
  std::string name(kComponentNames[static_cast<std::size_t>(component)]);
  if (component != Component::kEmbedding && component != Component::kLmHead)
    name += ", layer " + std::to_string(id.layer);
  if (is_expert(id.kind)) name += ", expert " + std::to_string(id.expert);
  switch (id.kind) {
    case kQuery:
      return name + ", q, k and v";
    case kAttnOut:
      return name + ", output";
    case kDenseDown:
    case kSharedDown:
    case kExpertDown:
      return name + ", down";
    default:
      return name;
  }
}

}  // namespace

Component component_of(const WeightId& id) {
  switch (id.kind) {
    case kEmbedding:
      return Component::kEmbedding;
    case kLmHead:
      return Component::kLmHead;
    case kQuery:
    case kKey:
    case kValue:
    case kAttnOut:
      return Component::kAttention;
    case kDenseGate:
    case kDenseUp:
    case kDenseDown:
      return Component::kDense;
    case kSharedGate:
    case kSharedUp:
    case kSharedDown:
      return Component::kShared;
    case kExpertGate:
    case kExpertUp:
    case kExpertDown:
      return id.modality == Modality::kText ? Component::kTextExperts : Component::kVisionExperts;
    default:
      return Component::kVision;
  }
}

void WeightLoader::report(const std::string& what) {
  if (!progress_) return;
  const std::lock_guard lock(mutex_);
  progress_(bytes_, what);
}

Result<AlignedVector<float>> WeightLoader::values(const WeightId& id) const {
  MOESAIC_TRY(const auto ref, source_.get(id));
  const auto& view = ref.view;
  AlignedVector<float> values(view.rows * view.cols);
  for (std::size_t r = 0; r < view.rows; ++r)
    for (std::size_t c = 0; c < view.cols; ++c) values[r * view.cols + c] = element_f32(view, r, c);
  return values;
}

Result<std::optional<PackedMatrix>> WeightLoader::kept(const WeightId& id) {
  if (!encoder_.keeps_quantized() || !source_.packed_format(id)) return std::nullopt;
  MOESAIC_TRY(auto packed, source_.packed(id));
  bytes_ += packed.bytes();
  return packed;
}

Result<PackedMatrix> WeightLoader::matrix(const WeightId& id) {
  MOESAIC_TRY(auto stored, kept(id));
  if (stored) return std::move(*stored);
  MOESAIC_TRY(const auto ref, source_.get(id));
  auto packed = encoder_.matrix(id, ref.view);
  if (!packed) return fail(name_of(id), packed.error());
  bytes_ += packed->bytes();
  return packed;
}

Result<FfnWeights> WeightLoader::ffn(WeightKind gate, WeightKind up, WeightKind down,
                                     const WeightId& at) {
  const auto id = [&](WeightKind kind) { return WeightId{kind, at.layer, at.modality, at.expert}; };
  FfnWeights weights;
  MOESAIC_TRY(auto stored, kept(id(gate)));
  if (stored) {
    weights.gate_up = std::move(*stored);
  } else {
    MOESAIC_TRY(const auto g, source_.get(id(gate)));
    MOESAIC_TRY(const auto u, source_.get(id(up)));
    auto packed = encoder_.gate_up(id(gate), g.view, u.view);
    if (!packed) return fail(name_of(id(gate)), packed.error());
    weights.gate_up = std::move(*packed);
    bytes_ += weights.gate_up.bytes();
  }
  MOESAIC_TRY(weights.down, matrix(id(down)));
  return weights;
}

Result<FfnWeights> WeightLoader::expert(std::uint32_t layer, Modality modality,
                                        std::uint32_t expert) {
  return ffn(kExpertGate, kExpertUp, kExpertDown, {kExpertGate, layer, modality, expert});
}

Result<RouterGate> WeightLoader::router(std::uint32_t layer, Modality modality) const {
  const auto m = static_cast<std::size_t>(modality);
  RouterGate gate;
  gate.experts = config_.experts[m];
  gate.hidden = config_.hidden;
  gate.top_k = config_.experts_per_token;
  MOESAIC_TRY(gate.weight, values({kRouter, layer, modality}));
  MOESAIC_TRY(gate.bias, values({kRouterBias, layer, modality}));
  return gate;
}

Result<LayerWeights> WeightLoader::decoder_layer(std::uint32_t layer) {
  LayerWeights weights;
  weights.moe = config_.layer_is_moe[layer];
  MOESAIC_TRY(weights.input_norm, values({kInputNorm, layer}));
  MOESAIC_TRY(weights.post_norm, values({kPostNorm, layer}));
  MOESAIC_TRY(weights.qkv, qkv(layer));
  MOESAIC_TRY(weights.attn_out, matrix({kAttnOut, layer}));
  if (!weights.moe) {
    MOESAIC_TRY(weights.ffn, ffn(kDenseGate, kDenseUp, kDenseDown, {kDenseGate, layer}));
  } else if (config_.shared_width > 0) {
    MOESAIC_TRY(weights.ffn, ffn(kSharedGate, kSharedUp, kSharedDown, {kSharedGate, layer}));
  }
  return weights;
}

Result<PackedMatrix> WeightLoader::qkv(std::uint32_t layer) {
  MOESAIC_TRY(auto stored, kept({kQuery, layer}));
  if (stored) return std::move(*stored);
  std::array<MatrixRef, 3> parts;
  MOESAIC_TRY(parts[0], source_.get({kQuery, layer}));
  MOESAIC_TRY(parts[1], source_.get({kKey, layer}));
  MOESAIC_TRY(parts[2], source_.get({kValue, layer}));
  const auto stacked = stack_rows(parts);
  auto packed = encoder_.matrix({kQuery, layer}, view_of(stacked));
  if (!packed) return fail(name_of({kQuery, layer}), packed.error());
  bytes_ += packed->bytes();
  return packed;
}

Result<NormWeights> WeightLoader::norm(WeightKind weight, WeightKind bias,
                                       std::uint32_t block) const {
  NormWeights weights;
  MOESAIC_TRY(weights.weight, values({weight, block}));
  MOESAIC_TRY(weights.bias, values({bias, block}));
  return weights;
}

Result<LinearWeights> WeightLoader::biased(WeightKind weight, WeightKind bias,
                                           std::uint32_t block) {
  LinearWeights weights;
  MOESAIC_TRY(weights.weight, matrix({weight, block}));
  MOESAIC_TRY(weights.bias, values({bias, block}));
  return weights;
}

Result<VitBlockWeights> WeightLoader::vit_block(std::uint32_t block) {
  VitBlockWeights w;
  MOESAIC_TRY(w.norm1, norm(kVitNorm1, kVitNorm1Bias, block));
  MOESAIC_TRY(w.norm2, norm(kVitNorm2, kVitNorm2Bias, block));
  MOESAIC_TRY(w.qkv, biased(kVitQkv, kVitQkvBias, block));
  MOESAIC_TRY(w.proj, biased(kVitProj, kVitProjBias, block));
  MOESAIC_TRY(w.fc1, biased(kVitFc1, kVitFc1Bias, block));
  MOESAIC_TRY(w.fc2, biased(kVitFc2, kVitFc2Bias, block));
  return w;
}

Result<VisionWeights> WeightLoader::vision() {
  VisionWeights w;
  MOESAIC_TRY(w.patch_embed, matrix({kPatchEmbed}));
  for (std::uint32_t block = 0; block < config_.vision.depth; ++block) {
    MOESAIC_TRY(auto loaded, vit_block(block));
    w.blocks.push_back(std::move(loaded));
    report("vision block " + std::to_string(block + 1) + " of " +
           std::to_string(config_.vision.depth));
  }
  MOESAIC_TRY(w.final_norm, norm(kVitFinalNorm, kVitFinalNormBias));
  MOESAIC_TRY(w.spatial_fc1, biased(kSpatialFc1, kSpatialFc1Bias));
  MOESAIC_TRY(w.spatial_fc2, biased(kSpatialFc2, kSpatialFc2Bias));
  MOESAIC_TRY(w.spatial_norm, norm(kSpatialNorm, kSpatialNormBias));
  MOESAIC_TRY(w.temporal_fc1, biased(kTemporalFc1, kTemporalFc1Bias));
  MOESAIC_TRY(w.temporal_fc2, biased(kTemporalFc2, kTemporalFc2Bias));
  MOESAIC_TRY(w.temporal_norm, norm(kTemporalNorm, kTemporalNormBias));
  MOESAIC_TRY(w.mlp, biased(kResamplerMlp, kResamplerMlpBias));
  MOESAIC_TRY(w.after_norm, values({kResamplerNorm}));
  report("resampler");
  return w;
}

}  // namespace moesaic
