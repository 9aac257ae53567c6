#include "common/model/tensor_names.hpp"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "common/model/weight_list.hpp"

namespace moesaic {
namespace {

using enum WeightKind;

/// Names that differ by prefix and numbering only.
struct PlainName {
  WeightKind kind;
  const char* name;  // below the layer, block, decoder, root or vision prefix
};

constexpr PlainName kLayerNames[] = {
    {kInputNorm, "input_layernorm.weight"}, {kPostNorm, "post_attention_layernorm.weight"},
    {kQuery, "self_attn.q_proj.weight"},    {kKey, "self_attn.k_proj.weight"},
    {kValue, "self_attn.v_proj.weight"},    {kAttnOut, "self_attn.o_proj.weight"}};

constexpr PlainName kDecoderNames[] = {{kEmbedding, "embed_tokens.weight"},
                                       {kFinalNorm, "norm.weight"}};

constexpr PlainName kBlockNames[] = {
    {kVitNorm1, "norm1.weight"},    {kVitNorm1Bias, "norm1.bias"},
    {kVitNorm2, "norm2.weight"},    {kVitNorm2Bias, "norm2.bias"},
    {kVitQkv, "attn.qkv.weight"},   {kVitQkvBias, "attn.qkv.bias"},
    {kVitProj, "attn.proj.weight"}, {kVitProjBias, "attn.proj.bias"},
    {kVitFc1, "mlp.fc1.weight"},    {kVitFc1Bias, "mlp.fc1.bias"},
    {kVitFc2, "mlp.fc2.weight"},    {kVitFc2Bias, "mlp.fc2.bias"}};

constexpr PlainName kVisionNames[] = {{kPatchEmbed, "patch_embed.proj.weight"},
                                      {kVitFinalNorm, "ln.weight"},
                                      {kVitFinalNormBias, "ln.bias"}};

/// Index 1 of the original sequences is an activation without parameters.
constexpr PlainName kResamplerNames[] = {{kSpatialFc1, "spatial_linear.0.weight"},
                                         {kSpatialFc1Bias, "spatial_linear.0.bias"},
                                         {kSpatialFc2, "spatial_linear.2.weight"},
                                         {kSpatialFc2Bias, "spatial_linear.2.bias"},
                                         {kSpatialNorm, "spatial_linear.3.weight"},
                                         {kSpatialNormBias, "spatial_linear.3.bias"},
                                         {kTemporalFc1, "temporal_linear.0.weight"},
                                         {kTemporalFc1Bias, "temporal_linear.0.bias"},
                                         {kTemporalFc2, "temporal_linear.2.weight"},
                                         {kTemporalFc2Bias, "temporal_linear.2.bias"},
                                         {kTemporalNorm, "temporal_linear.3.weight"},
                                         {kTemporalNormBias, "temporal_linear.3.bias"},
                                         {kResamplerMlp, "mlp.weight"},
                                         {kResamplerMlpBias, "mlp.bias"},
                                         {kResamplerNorm, "after_norm.weight"}};

template <std::size_t N>
const char* find_name(const PlainName (&table)[N], WeightKind kind) {
  const auto* found = std::ranges::find(table, kind, &PlainName::kind);
  return found == std::end(table) ? nullptr : found->name;
}

/// `spatial_linear.0.` of the original is `spatial_linear.fc1.` natively, and so on.
std::string native_resampler_name(std::string name) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kParts = {
      {{"linear.0.", "linear.fc1."}, {"linear.2.", "linear.fc2."}, {"linear.3.", "linear.ln."}}};
  for (const auto& [from, to] : kParts) {
    if (const auto at = name.find(from); at != std::string::npos) name.replace(at, from.size(), to);
  }
  return name;
}

bool is_vector(WeightKind kind, const WeightShape& shape) {
  return shape.rows == 1 && kind != kRouter && kind != kRouterBias;
}

/// The place of one weight in one layout.
class Locator {
 public:
  Locator(const ModelConfig& config, const TensorLayout& layout, const WeightId& id)
      : config_(config), layout_(layout), id_(id), shape_(weight_shape(config, id)) {}

  StoredPart locate() const {
    if (id_.kind == kLmHead) return plain("lm_head.weight");
    if (const auto* name = find_name(kDecoderNames, id_.kind)) return plain(layout_.decoder + name);
    if (const auto* name = find_name(kVisionNames, id_.kind)) return plain(layout_.vision + name);
    if (const auto* name = find_name(kBlockNames, id_.kind))
      return plain(layout_.vision + "blocks." + std::to_string(id_.layer) + "." + name);
    if (const auto* name = find_name(kResamplerNames, id_.kind))
      return plain(layout_.root + "resampler_model." +
                   (native() ? native_resampler_name(name) : name));
    const auto layer = layout_.decoder + "layers." + std::to_string(id_.layer) + ".";
    if (paddle() && (id_.kind == kQuery || id_.kind == kKey || id_.kind == kValue))
      return merged_qkv(layer);
    if (const auto* name = find_name(kLayerNames, id_.kind)) return plain(layer + name);
    return feed_forward(layer + "mlp.");
  }

 private:
  bool native() const { return layout_.format == TensorFormat::kNative; }
  bool paddle() const { return layout_.format == TensorFormat::kPaddle; }
  bool vision() const { return id_.modality == Modality::kVision; }
  static std::int64_t dim(std::size_t n) { return static_cast<std::int64_t>(n); }

  /// A tensor of its own: vector, table or linear.
  StoredPart plain(std::string name) const {
    if (is_vector(id_.kind, shape_)) return {std::move(name), {dim(shape_.cols)}};
    if (id_.kind == kEmbedding) return {std::move(name), {dim(shape_.rows), dim(shape_.cols)}};
    return linear(std::move(name), shape_.rows, 0);
  }

  /// Rows `first`.. of a linear with `rows` rows.
  StoredPart linear(std::string name, std::size_t rows, std::size_t first) const {
    if (paddle()) return {std::move(name), {dim(shape_.cols), dim(rows)}, first, true};
    return {std::move(name), {dim(rows), dim(shape_.cols)}, first * shape_.cols};
  }

  StoredPart merged_qkv(const std::string& layer) const {
    const std::size_t q = std::size_t{config_.heads} * config_.head_dim;
    const std::size_t kv = std::size_t{config_.kv_heads} * config_.head_dim;
    const auto first = id_.kind == kQuery ? 0 : id_.kind == kKey ? q : q + kv;
    return linear(layer + "self_attn.qkv_proj.weight", q + 2 * kv, first);
  }

  StoredPart feed_forward(const std::string& mlp) const {
    switch (id_.kind) {
      case kDenseGate:
      case kDenseUp:
      case kDenseDown:
        return swiglu(mlp);
      case kSharedGate:
      case kSharedUp:
      case kSharedDown:
        return swiglu(mlp + "shared_experts.");
      case kRouter:
        return router(mlp);
      case kRouterBias:
        return router_bias(mlp);
      default:
        break;
    }
    if (native()) return stacked_expert(mlp);
    // Vision experts are numbered after the text experts.
    const auto number = id_.expert + (vision() ? config_.experts[0] : 0);
    return swiglu(mlp + "experts." + std::to_string(number) + ".");
  }

  StoredPart swiglu(const std::string& base) const {
    const bool gate = id_.kind == kDenseGate || id_.kind == kSharedGate || id_.kind == kExpertGate;
    const bool up = id_.kind == kDenseUp || id_.kind == kSharedUp || id_.kind == kExpertUp;
    // Despite its name the merged tensor holds the gate first.
    if (paddle() && (gate || up))
      return linear(base + "up_gate_proj.weight", 2 * shape_.rows, gate ? 0 : shape_.rows);
    return linear(base + (gate ? "gate_proj.weight"
                          : up ? "up_proj.weight"
                               : "down_proj.weight"),
                  shape_.rows, 0);
  }

  StoredPart stacked_expert(const std::string& mlp) const {
    const auto base = mlp + (vision() ? "vision_moe." : "text_moe.") + "experts.";
    const auto experts = dim(config_.experts[static_cast<std::size_t>(id_.modality)]);
    const auto matrix = shape_.rows * shape_.cols;
    if (id_.kind == kExpertDown)
      return {
          base + "down_proj", {experts, dim(shape_.rows), dim(shape_.cols)}, id_.expert * matrix};
    const auto half = id_.kind == kExpertUp ? 1 : 0;
    return {base + "gate_up_proj",
            {experts, dim(2 * shape_.rows), dim(shape_.cols)},
            (2 * std::size_t{id_.expert} + half) * matrix};
  }

  /// Routers are [in, out] in the original and under Paddle alike.
  StoredPart router(const std::string& mlp) const {
    if (native())
      return {mlp + (vision() ? "vision_moe." : "text_moe.") + "gate.weight",
              {dim(shape_.rows), dim(shape_.cols)}};
    return {mlp + (vision() ? "gate.weight_1" : "gate.weight"),
            {dim(shape_.cols), dim(shape_.rows)},
            0,
            true};
  }

  StoredPart router_bias(const std::string& mlp) const {
    if (native())
      return {mlp + (vision() ? "vision_moe." : "text_moe.") +
                  "gate.moe_statics.e_score_correction_bias",
              {1, dim(shape_.cols)}};
    return {mlp + "moe_statics.e_score_correction_bias",
            {dim(kModalities), dim(shape_.cols)},
            static_cast<std::size_t>(id_.modality) * shape_.cols};
  }

  const ModelConfig& config_;
  const TensorLayout& layout_;
  const WeightId& id_;
  WeightShape shape_;
};

/// The first prefix under which `name` exists, else `fallback`.
std::string find_prefix(const std::function<bool(const std::string&)>& has,
                        std::initializer_list<const char*> prefixes, const std::string& name,
                        std::string fallback) {
  for (const auto* prefix : prefixes) {
    if (has(prefix + name)) return prefix;
  }
  return fallback;
}

}  // namespace

std::string_view format_name(TensorFormat format) {
  switch (format) {
    case TensorFormat::kOriginal:
      return "original";
    case TensorFormat::kNative:
      return "transformers-native";
    case TensorFormat::kPaddle:
      return "Paddle";
  }
  return "?";
}

Result<TensorLayout> detect_layout(const std::function<bool(const std::string&)>& has,
                                   std::string_view what) {
  TensorLayout layout;
  layout.decoder =
      find_prefix(has, {"model.", "model.language_model.", "ernie."}, "embed_tokens.weight", "");
  if (layout.decoder.empty())
    return fail(
        Errc::kNotFound,
        std::string(what) +
            ": no embedding table found, expected tensor \"model.embed_tokens.weight\", "
            "\"model.language_model.embed_tokens.weight\" or \"ernie.embed_tokens.weight\"");
  if (layout.decoder == "model.language_model.") {
    layout = TensorLayout::native();
  } else {
    layout.root = layout.decoder;
    const auto qkv = layout.decoder + "layers.0.self_attn.qkv_proj.";
    if (layout.decoder == "ernie." || has(qkv + "weight") || has(qkv + "quant_weight"))
      layout.format = TensorFormat::kPaddle;
  }
  layout.vision = find_prefix(has,
                              {"vision_model.", "model.vision_model.", "ernie.vision_model.",
                               "model.vision_tower.", "vision_tower."},
                              "patch_embed.proj.weight", layout.vision);
  return layout;
}

StoredPart locate(const ModelConfig& config, const TensorLayout& layout, const WeightId& id) {
  return Locator(config, layout, id).locate();
}

}  // namespace moesaic
