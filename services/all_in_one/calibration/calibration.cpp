#include "services/all_in_one/calibration/calibration.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "common/base/available_memory.hpp"
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

Result<std::unique_ptr<Calibration>> Calibration::run(ModelOptions options,
                                                      std::span<const ChatItem> items,
                                                      CalibrationSettings settings) {
  options.compute = "bf16";
  MOESAIC_TRY(auto model, open_model(options));
  if (!model.source)
    return fail(Errc::kUnsupported,
                options.model + ": calibration needs the checkpoint, this is a pack");
  MOESAIC_TRY(auto file, ScratchFile::create(settings.temp_dir));
  std::unique_ptr<Calibration> calibration(
      new Calibration(std::move(model), std::move(settings), std::move(file)));
  MOESAIC_TRY(auto hidden, calibration->embed(options, items));
  MOESAIC_CHECK(calibration->run_layers(std::move(hidden)));
  return calibration;
}

/// Tokens, positions and what enters the first layer. The vision tower is in memory meanwhile.
Result<std::vector<float>> Calibration::embed(const ModelOptions& options,
                                              std::span<const ChatItem> items) {
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
  std::vector<float> hidden;
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
      const auto at = hidden.size();
      hidden.resize(at + config.hidden);
      if (const float* feature = sequence->feature(i)) {
        std::memcpy(hidden.data() + at, feature, config.hidden * sizeof(float));
        continue;
      }
      const auto id = static_cast<std::size_t>(sequence->tokens[i]);
      for (std::size_t c = 0; c < config.hidden; ++c)
        hidden[at + c] = round_to_bf16(element_f32(embedding.view, id, c));
    }
    // The features are in `hidden` now.
    sequence->layout.spans.clear();
    auto request = std::make_shared<GenerateRequest>();
    request->prompt = sequence->request->prompt;
    sequence->request = std::move(request);
    sequences_.push_back(std::move(*sequence));
  }
  all_rows_.resize(rows_);
  std::iota(all_rows_.begin(), all_rows_.end(), 0U);
  return hidden;
}

Result<void> Calibration::run_layers(std::vector<float> hidden) {
  for (std::uint32_t layer = 0; layer < model_.config.layers; ++layer) {
    MOESAIC_TRY(auto inputs, run_layer(model_, layer, sequences_, hidden));
    auto& stored = layers_.emplace_back();
    const auto keep = [&](const std::vector<Bf16>& values) {
      return file_.append(std::as_bytes(std::span(values)));
    };
    MOESAIC_TRY(stored.attention, keep(inputs.attention));
    MOESAIC_TRY(stored.attended, keep(inputs.attended));
    MOESAIC_TRY(stored.feed_forward, keep(inputs.feed_forward));
    stored.chosen = std::move(inputs.chosen);
    if (settings_.progress) settings_.progress(layer + 1, model_.config.layers);
  }
  return {};
}

Result<std::vector<Bf16>> Calibration::read(std::uint64_t offset, std::size_t cols) const {
  std::vector<Bf16> values(rows_ * cols);
  MOESAIC_CHECK(file_.read(offset, std::as_writable_bytes(std::span(values))));
  return values;
}

Result<void> Calibration::look_at(std::uint32_t layer) {
  if (current_ && current_->layer == layer) return {};
  current_.reset();
  const auto& config = model_.config;
  const auto& stored = layers_.at(layer);
  Current current;
  current.layer = layer;
  MOESAIC_TRY(current.feed_forward, read(stored.feed_forward, config.hidden));
  const std::size_t top_k = stored.chosen.empty() ? 0 : config.experts_per_token;
  for (std::size_t m = 0; m < kModalities; ++m) current.chosen_by[m].resize(config.experts[m]);
  std::uint32_t row = 0;
  for (const auto& sequence : sequences_)
    for (std::size_t i = 0; i < sequence.tokens.size(); ++i, ++row) {
      auto& experts = current.chosen_by[static_cast<std::size_t>(sequence.modality(i))];
      for (std::size_t k = 0; k < top_k; ++k)
        experts[static_cast<std::size_t>(stored.chosen[row * top_k + k])].push_back(row);
    }
  current_ = std::move(current);
  return {};
}

Result<std::shared_ptr<const InputStatistics>> Calibration::for_weight(const WeightId& id) {
  const auto kind = input_kind(id.kind);
  if (!kind) return std::shared_ptr<const InputStatistics>();
  const WeightId asked{*kind, id.layer, id.modality, id.expert};
  if (last_id_ && same(*last_id_, asked)) return last_;
  last_.reset();
  last_id_.reset();
  MOESAIC_TRY(auto found, compute(asked));
  last_ = std::make_shared<const InputStatistics>(std::move(found));
  last_id_ = asked;
  return last_;
}

Result<InputStatistics> Calibration::compute(const WeightId& id) {
  const auto& config = model_.config;
  if (id.kind == kQuery || id.kind == kAttnOut) {
    const auto cols =
        id.kind == kQuery ? config.hidden : std::size_t{config.heads} * config.head_dim;
    const auto& stored = layers_.at(id.layer);
    MOESAIC_TRY(const auto values,
                read(id.kind == kQuery ? stored.attention : stored.attended, cols));
    return second_moment(values, cols, all_rows_, *model_.pool);
  }
  MOESAIC_CHECK(look_at(id.layer));
  if (id.kind == kDenseDown) return second_matrix(id, kDenseGate, kDenseUp);
  if (id.kind == kSharedDown) return second_matrix(id, kSharedGate, kSharedUp);
  if (id.kind == kExpertDown) return second_matrix(id, kExpertGate, kExpertUp);
  const auto moment = [&](std::span<const std::uint32_t> rows) {
    return second_moment(current_->feed_forward, config.hidden, rows, *model_.pool);
  };
  if (!current_->all) current_->all = moment(all_rows_);
  if (id.kind != kExpertGate) return *current_->all;
  auto own = moment(current_->chosen_by[static_cast<std::size_t>(id.modality)].at(id.expert));
  blend(own, *current_->all, settings_.kappa);
  return own;
}

Result<InputStatistics> Calibration::second_matrix(const WeightId& id, WeightKind gate_kind,
                                                   WeightKind up_kind) {
  auto part = id;
  part.kind = gate_kind;
  MOESAIC_TRY(const auto gate, model_.source->get(part));
  part.kind = up_kind;
  MOESAIC_TRY(const auto up, model_.source->get(part));
  const auto gate_up = pack_gate_up(gate.view, up.view, Compute::kBf16);
  if (id.kind != kExpertDown) return hidden_moment(gate_up, all_rows_);
  const auto& rows = current_->chosen_by[static_cast<std::size_t>(id.modality)].at(id.expert);
  auto own = hidden_moment(gate_up, rows);
  if (rows.size() >= settings_.few_rows) return own;
  const auto step =
      std::max<std::size_t>(1, (rows_ + settings_.pooled_rows - 1) / settings_.pooled_rows);
  std::vector<std::uint32_t> some;
  for (std::size_t row = 0; row < rows_; row += step)
    some.push_back(static_cast<std::uint32_t>(row));
  blend(own, hidden_moment(gate_up, some), settings_.kappa);
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
      std::memcpy(x.data() + i * hidden, current_->feed_forward.data() + rows[first + i] * hidden,
                  hidden * sizeof(Bf16));
    linear_gate_up(gate_up, {Compute::kBf16, x.data(), count, hidden, hidden},
                   {Compute::kBf16, inner.data() + first * width, count, width, width},
                   *model_.pool);
  }
  std::vector<std::uint32_t> all(rows.size());
  std::iota(all.begin(), all.end(), 0U);
  return second_moment(inner, width, all, *model_.pool);
}

}  // namespace moesaic
