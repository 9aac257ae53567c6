#include "services/all_in_one/calibration/calibration.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "common/kernels/linear.hpp"
#include "services/all_in_one/calibration/moment.hpp"
#include "services/all_in_one/eval/item_encoder.hpp"

namespace moesaic {
namespace {

using enum WeightKind;

/// The first of the kinds that read the same rows; none: not a matrix of a decoder layer.
std::optional<WeightKind> input_kind(WeightKind kind) {
  switch (kind) {
    case kQuery:
    case kKey:
    case kValue:
      return kQuery;
    case kDenseGate:
    case kDenseUp:
      return kDenseGate;
    case kSharedGate:
    case kSharedUp:
      return kSharedGate;
    case kExpertGate:
    case kExpertUp:
      return kExpertGate;
    case kAttnOut:
    case kDenseDown:
    case kSharedDown:
    case kExpertDown:
      return kind;
    default:
      return std::nullopt;
  }
}

bool same(const WeightId& a, const WeightId& b) {
  return a.kind == b.kind && a.layer == b.layer && a.modality == b.modality && a.expert == b.expert;
}

}  // namespace

Result<std::unique_ptr<Calibration>> Calibration::start(ModelOptions options,
                                                        std::span<const ChatItem> items,
                                                        CalibrationSettings settings) {
  options.compute = "bf16";
  MOESAIC_TRY(auto model, open_model(options));
  std::unique_ptr<Calibration> calibration(new Calibration(std::move(model), settings));
  MOESAIC_CHECK(calibration->add_items(options, items));
  return calibration;
}

/// Tokens, positions and what enters the first layer. The vision tower is in memory meanwhile.
Result<void> Calibration::add_items(const ModelOptions& options, std::span<const ChatItem> items) {
  const auto& config = model_.config;
  std::shared_ptr<const VisionWeights> vision;
  if (std::any_of(items.begin(), items.end(),
                  [](const ChatItem& item) { return !item.visuals.empty(); })) {
    MOESAIC_TRY(auto weights, load_vision(config, *model_.source, Compute::kBf16));
    vision = std::make_shared<const VisionWeights>(std::move(weights));
  }
  MOESAIC_TRY(auto encoder,
              ItemEncoder::load(options.model, config, Compute::kBf16, vision, model_.pool));
  MOESAIC_TRY(const auto embedding, model_.source->get({kEmbedding}));
  // Hidden state, three operands of a layer, and as much again for what is computed of them.
  const auto row_bytes = 4 * std::size_t{config.hidden} +
                         2 * (2 * std::size_t{config.hidden} + config.heads * config.head_dim);
  const auto most = available_memory() / 2 / row_bytes;
  for (const auto& item : items) {
    MOESAIC_TRY(auto encoded, encoder.encode(item, true));
    auto sequence = known_sequence(config, std::move(encoded));
    if (!sequence) return fail(item.where, sequence.error());
    rows_ += sequence->tokens.size();
    if (rows_ > most)
      return fail(Errc::kTooLarge, item.where + ": " + std::to_string(rows_) +
                                       " tokens so far, memory is enough for " +
                                       std::to_string(most) + "; use fewer items");
    for (std::size_t i = 0; i < sequence->tokens.size(); ++i) {
      const auto at = hidden_.size();
      hidden_.resize(at + config.hidden);
      if (const float* feature = sequence->feature(i)) {
        std::memcpy(hidden_.data() + at, feature, config.hidden * sizeof(float));
        continue;
      }
      const auto id = static_cast<std::size_t>(sequence->tokens[i]);
      for (std::size_t c = 0; c < config.hidden; ++c)
        hidden_[at + c] = round_to_bf16(element_f32(embedding.view, id, c));
    }
    // The features are in `hidden_` now.
    sequence->layout.spans.clear();
    auto request = std::make_shared<GenerateRequest>();
    request->prompt = sequence->request->prompt;
    sequence->request = std::move(request);
    sequences_.push_back(std::move(*sequence));
  }
  all_rows_.resize(rows_);
  std::iota(all_rows_.begin(), all_rows_.end(), 0U);
  return {};
}

Result<void> Calibration::enter(std::uint32_t layer) {
  if (pass_ && pass_->layer == layer) return {};
  if (layer < next_)
    return fail(Errc::kInvalidArgument, "calibration is at layer " + std::to_string(next_ - 1) +
                                            ", layer " + std::to_string(layer) + " is asked for");
  layer_input_.reset();
  while (next_ <= layer) {
    pass_.reset();  // one layer's weights at a time
    MOESAIC_TRY(pass_, run_layer(model_, next_, sequences_, hidden_));
    ++next_;
  }
  const auto& config = model_.config;
  for (std::size_t m = 0; m < kModalities; ++m)
    chosen_by_[m].assign(config.experts[m], std::vector<std::uint32_t>());
  if (pass_->chosen.empty()) return {};
  std::uint32_t row = 0;
  for (const auto& sequence : sequences_)
    for (std::size_t i = 0; i < sequence.tokens.size(); ++i, ++row)
      for (std::size_t k = 0; k < config.experts_per_token; ++k) {
        const auto expert = pass_->chosen[row * config.experts_per_token + k];
        chosen_by_[static_cast<std::size_t>(sequence.modality(i))][static_cast<std::size_t>(expert)]
            .push_back(row);
      }
  return {};
}

Result<std::shared_ptr<const InputStatistics>> Calibration::for_weight(const WeightId& id) {
  const auto kind = input_kind(id.kind);
  if (!kind) return std::shared_ptr<const InputStatistics>();
  const WeightId asked{*kind, id.layer, id.modality, id.expert};
  if (last_id_ && same(*last_id_, asked)) return last_;
  last_.reset();
  last_id_.reset();
  MOESAIC_CHECK(enter(id.layer));
  const std::size_t hidden = model_.config.hidden;
  InputStatistics found;
  if (*kind == kQuery) {
    found = moment(pass_->attention_in, hidden, all_rows_);
  } else if (*kind == kAttnOut) {
    found = moment(pass_->attended, std::size_t{model_.config.heads} * model_.config.head_dim,
                   all_rows_);
  } else if (*kind == kDenseGate || *kind == kSharedGate) {
    found = moment(pass_->feed_forward_in, hidden, all_rows_);
  } else if (*kind == kDenseDown || *kind == kSharedDown) {
    found = hidden_moment(pass_->decoder->layers[0].ffn.gate_up, all_rows_);
  } else {
    const auto& rows = chosen_by_[static_cast<std::size_t>(id.modality)].at(id.expert);
    found = *kind == kExpertGate ? expert_input(rows) : expert_down(id, rows);
  }
  last_ = std::make_shared<const InputStatistics>(std::move(found));
  last_id_ = asked;
  return last_;
}

InputStatistics Calibration::moment(std::span<const Bf16> values, std::size_t cols,
                                    std::span<const std::uint32_t> rows) const {
  return second_moment(values, cols, rows, *model_.pool);
}

InputStatistics Calibration::expert_input(const std::vector<std::uint32_t>& rows) {
  const std::size_t hidden = model_.config.hidden;
  if (!layer_input_) layer_input_ = moment(pass_->feed_forward_in, hidden, all_rows_);
  auto own = moment(pass_->feed_forward_in, hidden, rows);
  blend(own, *layer_input_, settings_.kappa);
  return own;
}

InputStatistics Calibration::expert_down(const WeightId& id,
                                         const std::vector<std::uint32_t>& rows) const {
  const auto& weights =
      pass_->experts->weights().layers[0][static_cast<std::size_t>(id.modality)].at(id.expert);
  auto own = hidden_moment(weights.gate_up, rows);
  if (rows.size() >= settings_.few_rows) return own;
  const auto step =
      std::max<std::size_t>(1, (rows_ + settings_.pooled_rows - 1) / settings_.pooled_rows);
  std::vector<std::uint32_t> some;
  for (std::size_t row = 0; row < rows_; row += step)
    some.push_back(static_cast<std::uint32_t>(row));
  blend(own, hidden_moment(weights.gate_up, some), settings_.kappa);
  return own;
}

/// Of silu(gate x) * (up x), as `ffn` leaves it for the second matrix.
InputStatistics Calibration::hidden_moment(const PackedMatrix& gate_up,
                                           std::span<const std::uint32_t> rows) const {
  const std::size_t hidden = model_.config.hidden;
  const auto width = gate_up.rows;
  std::vector<Bf16> inner(rows.size() * width);
  std::vector<Bf16> x;
  constexpr std::size_t kBlock = 2048;
  for (std::size_t first = 0; first < rows.size(); first += kBlock) {
    const auto count = std::min(kBlock, rows.size() - first);
    x.resize(count * hidden);
    for (std::size_t i = 0; i < count; ++i)
      std::memcpy(x.data() + i * hidden, pass_->feed_forward_in.data() + rows[first + i] * hidden,
                  hidden * sizeof(Bf16));
    linear_gate_up(gate_up, {Compute::kBf16, x.data(), count, hidden, hidden},
                   {Compute::kBf16, inner.data() + first * width, count, width, width},
                   *model_.pool);
  }
  std::vector<std::uint32_t> all(rows.size());
  std::iota(all.begin(), all.end(), 0U);
  return moment(inner, width, all);
}

}  // namespace moesaic
