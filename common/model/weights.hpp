#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/kernels/packed_matrix.hpp"
#include "common/kernels/router_gate.hpp"
#include "common/model/config.hpp"
#include "common/model/weight_source.hpp"

namespace moesaic {

/// SwiGLU feed-forward matrices.
struct FfnWeights {
  PackedMatrix gate_up;  ///< width x hidden, interleaved
  PackedMatrix down;     ///< hidden x width
};

/// What a decoder holds of one layer.
struct LayerWeights {
  AlignedVector<float> input_norm, post_norm;
  PackedMatrix qkv;  ///< rows: q heads, k heads, v heads; one product for all three
  PackedMatrix attn_out;
  bool moe = false;
  FfnWeights ffn;  ///< dense FFN, or the shared experts of a MoE layer (empty if none)
};

/// Weights of the decoder service: everything of the text side but experts and routers.
struct DecoderWeights {
  PackedMatrix embedding;  ///< [vocab, hidden]
  PackedMatrix lm_head;    ///< the same memory as `embedding` if tied
  AlignedVector<float> final_norm;
  std::vector<LayerWeights> layers;
};

/// The gates of all layers, held by whoever dispatches: [layer][modality]; dense layers are empty.
struct RouterWeights {
  std::vector<std::array<RouterGate, kModalities>> layers;
  /// Per layer and modality: what the experts are stored in, which decides the form in which rows
  /// go to them. Empty: bf16 everywhere.
  std::vector<std::array<WeightFormat, kModalities>> expert_format;
};

/// Experts held by one process: [layer][modality][expert]; those not held have a null
/// `gate_up.data`.
struct ExpertWeights {
  std::vector<std::array<std::vector<FfnWeights>, kModalities>> layers;
};

/// LayerNorm or biased linear of the vision side.
struct NormWeights {
  AlignedVector<float> weight, bias;
};
struct LinearWeights {
  PackedMatrix weight;
  AlignedVector<float> bias;
};

struct VitBlockWeights {
  NormWeights norm1, norm2;
  LinearWeights qkv, proj, fc1, fc2;
};

/// Weights of the vision-encoder service.
struct VisionWeights {
  PackedMatrix patch_embed;
  std::vector<VitBlockWeights> blocks;
  NormWeights final_norm;
  LinearWeights spatial_fc1, spatial_fc2, temporal_fc1, temporal_fc2, mlp;
  NormWeights spatial_norm, temporal_norm;
  AlignedVector<float> after_norm;
};

/// Called now and then while loading: bytes done so far, and what is being loaded.
using LoadProgress = std::function<void(std::uint64_t bytes, const std::string& what)>;

/// True if this process holds the expert.
using ExpertFilter =
    std::function<bool(std::uint32_t layer, Modality modality, std::uint32_t expert)>;

/// Load and pack each owner's part. kInt keeps what is stored quantised as it is; the other modes
/// take it rounded to bf16.
[[nodiscard]] Result<DecoderWeights> load_decoder(const ModelConfig& config,
                                                  const WeightSource& source, Compute compute,
                                                  const LoadProgress& progress = {});
/// @param compute of the experts: decides what `expert_format` says
[[nodiscard]] Result<RouterWeights> load_routers(const ModelConfig& config,
                                                 const WeightSource& source,
                                                 Compute compute = Compute::kBf16);
[[nodiscard]] Result<ExpertWeights> load_experts(const ModelConfig& config,
                                                 const WeightSource& source, Compute compute,
                                                 const ExpertFilter& held,
                                                 const LoadProgress& progress = {});
[[nodiscard]] Result<VisionWeights> load_vision(const ModelConfig& config,
                                                const WeightSource& source, Compute compute,
                                                const LoadProgress& progress = {});

}  // namespace moesaic
