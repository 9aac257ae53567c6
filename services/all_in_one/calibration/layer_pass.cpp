#include "services/all_in_one/calibration/layer_pass.hpp"

#include <algorithm>
#include <cmath>

#include "common/engine/local_experts.hpp"
#include "common/engine/step.hpp"
#include "common/kv_cache/kv_cache.hpp"

namespace moesaic {
namespace {

/// Layer `layer` of a model as the only one, and no embedding: rows come from elsewhere.
class OneLayer final : public WeightSource {
 public:
  OneLayer(const WeightSource& source, std::uint32_t layer, std::size_t hidden)
      : source_(source), layer_(layer), zeros_(std::make_shared<std::vector<float>>(hidden)) {}

  Result<MatrixRef> get(const WeightId& id) const override {
    if (id.kind == WeightKind::kEmbedding)
      return MatrixRef{{reinterpret_cast<const std::byte*>(zeros_->data()), DType::kF32, 1,
                        zeros_->size(), static_cast<std::ptrdiff_t>(zeros_->size()), 1},
                       zeros_};
    auto here = id;
    here.layer = layer_;
    return source_.get(here);
  }

 private:
  const WeightSource& source_;
  std::uint32_t layer_;
  std::shared_ptr<std::vector<float>> zeros_;
};

ModelConfig one_layer_of(const ModelConfig& config, std::uint32_t layer) {
  auto one = config;
  one.layers = 1;
  one.layer_is_moe = {config.layer_is_moe[layer]};
  one.tie_word_embeddings = true;
  return one;
}

/// Keeps what matrices read, and puts what leaves the layer where it came from.
class InputCollector final : public TapSink {
 public:
  /// @param last also what the final norm makes of what leaves the layer
  InputCollector(LayerInputs& inputs, std::span<float> hidden, bool last)
      : inputs_(inputs), hidden_(hidden), last_(last) {}

  void put(const std::string& name, std::span<const float> values,
           std::span<const std::size_t>) override {
    if (name == "layer.0.input_norm") {
      append(values, inputs_.attention);
    } else if (name == "layer.0.attn_heads") {
      append(values, inputs_.attended);
    } else if (name == "layer.0.post_norm") {
      append(values, inputs_.feed_forward);
    } else if (name == "final_norm" && last_) {
      append(values, inputs_.output);
    } else if (name == "layer.0.out") {
      std::copy(values.begin(), values.end(), hidden_.begin() + static_cast<std::ptrdiff_t>(out_));
      out_ += values.size();
    }
  }
  void put(const std::string& name, std::span<const std::int32_t> values,
           std::span<const std::size_t>) override {
    if (name == "router.0.index")
      inputs_.chosen.insert(inputs_.chosen.end(), values.begin(), values.end());
  }
  bool fine() const override { return true; }

 private:
  /// The values are bf16 already.
  static void append(std::span<const float> values, std::vector<Bf16>& out) {
    for (const auto value : values) out.push_back(f32_to_bf16(value));
  }

  LayerInputs& inputs_;
  std::span<float> hidden_;
  std::size_t out_ = 0;
  bool last_;
};

/// The first of `sequences` that make a step of at most kStepRows rows; at least one.
std::size_t group_size(std::span<const Sequence> sequences) {
  std::size_t count = 0, rows = 0;
  while (count < sequences.size()) {
    rows += sequences[count].tokens.size();
    if (count > 0 && rows > kStepRows) break;
    ++count;
  }
  return count;
}

/// Runs whole sequences in one step, or a single long one in several.
Result<void> run_group(DecoderStep& step, KvCache& kv, std::span<Sequence> group, float* hidden,
                       std::size_t width) {
  for (auto& sequence : group)
    while (sequence.blocks.size() < kv_blocks_for(sequence.tokens.size()))
      sequence.blocks.push_back(kv.allocate().value());
  // A group of several fits into a step.
  const std::size_t chunk = group.size() > 1 ? group.front().tokens.size() : kStepRows;
  StepBatch batch;
  for (std::size_t first = 0; first < group.front().tokens.size(); first += chunk) {
    batch.clear();
    for (const auto& sequence : group) {
      const auto rows = sequence.tokens.size() - first;
      append_rows(sequence, first, group.size() > 1 ? rows : std::min(rows, chunk), batch);
    }
    for (auto& feature : batch.features) {
      feature = hidden;
      hidden += width;
    }
    if (auto done = step.run(batch); !done) return tl::make_unexpected(std::move(done).error());
  }
  for (auto& sequence : group) {
    for (const auto block : sequence.blocks) kv.release(block);
    sequence.blocks.clear();
  }
  return {};
}

}  // namespace

Result<LayerInputs> run_layer(const OpenedModel& model, std::uint32_t layer,
                              std::span<Sequence> sequences, std::span<float> hidden) {
  const auto config = one_layer_of(model.config, layer);
  const OneLayer source(*model.source, layer, config.hidden);
  MOESAIC_TRY(auto decoder, load_decoder(config, source, Compute::kBf16));
  MOESAIC_TRY(auto gates, load_routers(config, source));
  MOESAIC_TRY(auto experts,
              load_experts(config, source, Compute::kBf16,
                           [](std::uint32_t, Modality, std::uint32_t) { return true; }));
  LocalExperts backend(
      config, std::make_shared<const RouterWeights>(std::move(gates)),
      std::make_shared<const ExpertTable>(config, std::move(experts), Compute::kBf16), *model.pool);

  std::size_t blocks = 0;
  for (std::size_t first = 0; first < sequences.size();) {
    const auto group = sequences.subspan(first, group_size(sequences.subspan(first)));
    std::size_t needed = 0;
    for (const auto& sequence : group) needed += kv_blocks_for(sequence.tokens.size());
    blocks = std::max(blocks, needed);
    first += group.size();
  }
  PagedKvCache kv(DecoderStep::attention_shape(config, Compute::kBf16), 1, blocks);
  DecoderStep step(config, std::make_shared<const DecoderWeights>(std::move(decoder)),
                   Compute::kBf16, kv, backend, *model.pool);
  LayerInputs inputs;
  const auto rows = hidden.size() / config.hidden;
  inputs.attention.reserve(hidden.size());
  inputs.attended.reserve(rows * config.heads * config.head_dim);
  inputs.feed_forward.reserve(hidden.size());
  const bool last = layer + 1 == model.config.layers;
  if (last) inputs.output.reserve(hidden.size());
  InputCollector collector(inputs, hidden, last);
  step.set_taps(&collector);
  std::size_t row = 0;
  for (std::size_t first = 0; first < sequences.size();) {
    const auto group = sequences.subspan(first, group_size(sequences.subspan(first)));
    MOESAIC_CHECK(run_group(step, kv, group, hidden.data() + row * config.hidden, config.hidden));
    for (const auto& sequence : group) row += sequence.tokens.size();
    first += group.size();
  }
  if (!std::all_of(hidden.begin(), hidden.end(), [](float x) { return std::isfinite(x); }))
    return fail(Errc::kInvalidArgument,
                "layer " + std::to_string(layer) + ": its numbers overflowed");
  return inputs;
}

}  // namespace moesaic
