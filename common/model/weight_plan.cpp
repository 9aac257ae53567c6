#include "common/model/weight_plan.hpp"

#include <algorithm>
#include <array>
#include <set>

#include "common/model/pack_layout.hpp"
#include "common/model/weight_encoder.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kValues = kComponentNames.size();

/// A visitor of pack_layout that adds up sizes; no weight is touched.
class Measure {
 public:
  explicit Measure(const PackPolicy& policy) : policy_(policy) {}

  /// What the following matrices belong to.
  void enter(Component component, std::uint32_t layer) {
    component_ = component;
    layer_ = layer;
  }
  /// How much of it a text token reads, as a fraction.
  void reads(std::uint32_t of, std::uint32_t all) {
    of_ = of;
    all_ = all;
  }

  void matrix(const std::string& name, PackedMatrix&, std::size_t rows, std::size_t cols,
              bool gate_up) {
    // Layers visit attention and feed-forward together.
    const auto component =
        component_ != Component::kAttention || name.find(".ffn.") == name.npos ? component_ : ffn_;
    PackedMatrix w;
    w.format = policy_.at(component, layer_);
    w.rows = rows;
    w.cols = cols;
    w.gate_up = gate_up;
    const auto part = static_cast<std::size_t>(component);
    formats_[part].insert(std::string(format_name(w.format)));
    add(part, w.bytes());
  }
  void values(const std::string&, AlignedVector<float>&, std::size_t count) {
    formats_[kValues].insert("f32");
    add(kValues, count * sizeof(float));
  }
  void set_ffn(Component component) { ffn_ = component; }

  WeightPlan plan() const {
    WeightPlan plan;
    for (std::size_t i = 0; i <= kValues; ++i) {
      if (bytes_[i] == 0) continue;
      PlannedPart part{
          i < kValues ? std::string(kComponentNames[i]) : "values", {}, bytes_[i], token_bytes_[i]};
      for (const auto& format : formats_[i])
        part.formats += (part.formats.empty() ? "" : ", ") + format;
      plan.parts.push_back(std::move(part));
    }
    return plan;
  }

 private:
  void add(std::size_t part, std::uint64_t bytes) {
    bytes_[part] += bytes;
    token_bytes_[part] += bytes * of_ / all_;
  }

  const PackPolicy& policy_;
  Component component_ = Component::kEmbedding, ffn_ = Component::kDense;
  std::uint32_t layer_ = 0, of_ = 0, all_ = 1;
  std::array<std::uint64_t, kValues + 1> bytes_{}, token_bytes_{};
  std::array<std::set<std::string>, kValues + 1> formats_;
};

}  // namespace

std::uint64_t WeightPlan::bytes() const {
  std::uint64_t sum = 0;
  for (const auto& part : parts) sum += part.bytes;
  return sum;
}

std::uint64_t WeightPlan::token_bytes() const {
  std::uint64_t sum = 0;
  for (const auto& part : parts) sum += part.token_bytes;
  return sum;
}

std::uint64_t WeightPlan::bytes_of(const std::string& name) const {
  const auto part = std::find_if(parts.begin(), parts.end(),
                                 [&](const PlannedPart& p) { return p.name == name; });
  return part == parts.end() ? 0 : part->bytes;
}

std::uint64_t WeightPlan::decoder_bytes() const {
  auto bytes = this->bytes();
  for (const auto component :
       {Component::kTextExperts, Component::kVisionExperts, Component::kVision})
    bytes -= bytes_of(std::string(kComponentNames[static_cast<std::size_t>(component)]));
  return bytes;
}

WeightPlan plan_weights(const ModelConfig& config, const PackPolicy& policy) {
  Measure measure(policy);
  PackedMatrix matrix;
  AlignedVector<float> values;
  // The output matrix is read whole; of a table that is not tied, a row.
  const bool tied = config.tie_word_embeddings;
  measure.reads(tied ? 1 : 0, 1);
  measure.enter(Component::kEmbedding, 0);
  measure.matrix("embedding", matrix, config.vocab_size, config.hidden, false);
  measure.reads(1, 1);
  if (!tied) {
    measure.enter(Component::kLmHead, 0);
    measure.matrix("lm_head", matrix, config.vocab_size, config.hidden, false);
  }
  measure.values("final_norm", values, config.hidden);
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    const bool moe = config.layer_is_moe[layer];
    measure.reads(1, 1);
    measure.enter(Component::kAttention, layer);
    measure.set_ffn(moe ? Component::kShared : Component::kDense);
    LayerWeights weights;
    pack_layout::visit_layer(config, layer, weights, measure);
    if (!moe) continue;
    for (const auto modality : {Modality::kText, Modality::kVision}) {
      const auto m = static_cast<std::size_t>(modality);
      const bool text = modality == Modality::kText;
      measure.reads(text ? 1 : 0, 1);
      RouterGate gate;
      pack_layout::visit_router(config, layer, modality, gate, measure);
      measure.enter(text ? Component::kTextExperts : Component::kVisionExperts, layer);
      measure.reads(text ? config.experts_per_token : 0, config.experts[m]);
      FfnWeights expert;
      for (std::uint32_t e = 0; e < config.experts[m]; ++e)
        pack_layout::visit_ffn("expert", config.expert_width[m], config.hidden, expert, measure);
    }
  }
  measure.reads(0, 1);
  measure.enter(Component::kVision, 0);
  VisionWeights vision;
  pack_layout::VisionVisit(config, measure).all(vision);
  return measure.plan();
}

}  // namespace moesaic
