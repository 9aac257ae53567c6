#pragma once

#include <string>

#include "common/model/weight_list.hpp"
#include "common/model/weights.hpp"

// Names of tensors in packs, in one place for writer and reader. A visitor has
//   matrix(name, PackedMatrix&, rows, cols, gate_up) and values(name, AlignedVector<float>&,
//   count).

namespace moesaic::pack_layout {

inline const char* modality_name(Modality modality) {
  return modality == Modality::kText ? "text" : "vision";
}

inline std::string expert_file(Modality modality, std::uint32_t first) {
  std::string number = std::to_string(first);
  number.insert(0, number.size() < 2 ? 1 : 0, '0');
  return std::string("experts-") + modality_name(modality) + "-" + number + ".pack";
}

inline std::string expert_name(std::uint32_t layer, Modality modality, std::uint32_t expert) {
  return "layers." + std::to_string(layer) + "." + modality_name(modality) + "." +
         std::to_string(expert);
}

template <class Visitor>
void visit_ffn(const std::string& name, std::size_t width, std::size_t hidden, FfnWeights& ffn,
               Visitor& v) {
  v.matrix(name + ".gate_up", ffn.gate_up, width, hidden, true);
  v.matrix(name + ".down", ffn.down, hidden, width, false);
}

template <class Visitor>
void visit_layer(const ModelConfig& config, std::uint32_t layer, LayerWeights& w, Visitor& v) {
  const auto name = "layers." + std::to_string(layer);
  const std::size_t hidden = config.hidden;
  const std::size_t heads = std::size_t{config.heads} * config.head_dim;
  w.moe = config.layer_is_moe[layer];
  v.values(name + ".input_norm", w.input_norm, hidden);
  v.values(name + ".post_norm", w.post_norm, hidden);
  v.matrix(name + ".qkv", w.qkv, heads + 2 * std::size_t{config.kv_heads} * config.head_dim, hidden,
           false);
  v.matrix(name + ".attn_out", w.attn_out, hidden, heads, false);
  const std::size_t width = w.moe ? config.shared_width : config.intermediate;
  if (width > 0) visit_ffn(name + ".ffn", width, hidden, w.ffn, v);
}

template <class Visitor>
void visit_router(const ModelConfig& config, std::uint32_t layer, Modality modality,
                  RouterGate& gate, Visitor& v) {
  const auto m = static_cast<std::size_t>(modality);
  const auto name = "layers." + std::to_string(layer) + "." + modality_name(modality) + ".gate";
  gate.experts = config.experts[m];
  gate.hidden = config.hidden;
  gate.top_k = config.experts_per_token;
  v.values(name + ".weight", gate.weight, gate.experts * gate.hidden);
  v.values(name + ".bias", gate.bias, gate.experts);
}

/// One visit of the vision side; sizes by the configuration.
template <class Visitor>
class VisionVisit {
 public:
  VisionVisit(const ModelConfig& config, Visitor& v) : config_(config), v_(v) {}

  void all(VisionWeights& w) {
    using enum WeightKind;
    matrix("patch_embed", w.patch_embed, kPatchEmbed);
    w.blocks.resize(config_.vision.depth);
    for (std::uint32_t b = 0; b < config_.vision.depth; ++b) {
      auto& block = w.blocks[b];
      const auto name = "blocks." + std::to_string(b);
      norm(name + ".norm1", block.norm1, kVitNorm1);
      norm(name + ".norm2", block.norm2, kVitNorm2);
      linear(name + ".qkv", block.qkv, kVitQkv, kVitQkvBias);
      linear(name + ".proj", block.proj, kVitProj, kVitProjBias);
      linear(name + ".fc1", block.fc1, kVitFc1, kVitFc1Bias);
      linear(name + ".fc2", block.fc2, kVitFc2, kVitFc2Bias);
    }
    norm("final_norm", w.final_norm, kVitFinalNorm);
    linear("spatial_fc1", w.spatial_fc1, kSpatialFc1, kSpatialFc1Bias);
    linear("spatial_fc2", w.spatial_fc2, kSpatialFc2, kSpatialFc2Bias);
    norm("spatial_norm", w.spatial_norm, kSpatialNorm);
    linear("temporal_fc1", w.temporal_fc1, kTemporalFc1, kTemporalFc1Bias);
    linear("temporal_fc2", w.temporal_fc2, kTemporalFc2, kTemporalFc2Bias);
    norm("temporal_norm", w.temporal_norm, kTemporalNorm);
    linear("mlp", w.mlp, kResamplerMlp, kResamplerMlpBias);
    v_.values("after_norm", w.after_norm, weight_shape(config_, {kResamplerNorm}).cols);
  }

 private:
  void matrix(const std::string& name, PackedMatrix& w, WeightKind kind) {
    const auto shape = weight_shape(config_, {kind});
    v_.matrix(name, w, shape.rows, shape.cols, false);
  }
  void norm(const std::string& name, NormWeights& w, WeightKind kind) {
    const auto count = weight_shape(config_, {kind}).cols;
    v_.values(name + ".weight", w.weight, count);
    v_.values(name + ".bias", w.bias, count);
  }
  void linear(const std::string& name, LinearWeights& w, WeightKind weight, WeightKind bias) {
    matrix(name + ".weight", w.weight, weight);
    v_.values(name + ".bias", w.bias, weight_shape(config_, {bias}).cols);
  }

  const ModelConfig& config_;
  Visitor& v_;
};

}  // namespace moesaic::pack_layout
