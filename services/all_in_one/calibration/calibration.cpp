#include "services/all_in_one/calibration/calibration.hpp"

#include <malloc.h>

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

/// Freed blocks of so many bytes go back to the system at once. Left to itself malloc comes to keep
/// up to 64 MB of them, and parts of layers that are gone pile up beside the one that is there.
constexpr int kReturnedBytes = 1 << 20;

bool same(const WeightId& a, const WeightId& b) {
  return a.kind == b.kind && a.layer == b.layer && a.modality == b.modality && a.expert == b.expert;
}

}  // namespace

std::optional<WeightKind> input_kind(const ModelConfig& config, WeightKind kind) {
  switch (kind) {
    case kLmHead:
      return kLmHead;
    case kEmbedding:
      return config.tie_word_embeddings ? std::optional(kLmHead) : std::nullopt;
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

Result<std::unique_ptr<Calibration>> Calibration::start(ModelOptions options,
                                                        std::span<const ChatItem> items,
                                                        CalibrationSettings settings) {
  ::mallopt(M_MMAP_THRESHOLD, kReturnedBytes);
  options.compute = "bf16";
  if (settings.memory == 0) settings.memory = available_memory();
  MOESAIC_TRY(auto model, open_model(options));
  if (!model.source)
    return fail(Errc::kUnsupported,
                options.model + ": calibration needs the checkpoint, this is a pack");
  std::unique_ptr<Calibration> calibration(new Calibration(std::move(model), std::move(settings)));
  MOESAIC_CHECK(calibration->embed(options, items));
  return calibration;
}

/// Tokens, positions and what enters the first layer. The vision tower is in memory meanwhile.
Result<void> Calibration::embed(const ModelOptions& options, std::span<const ChatItem> items) {
  const auto& config = model_.config;
  const bool pictures = std::any_of(items.begin(), items.end(),
                                    [](const ChatItem& item) { return !item.visuals.empty(); });
  const auto fits = [&](std::uint64_t longest, const std::string& where) -> Result<void> {
    memory_ = calibration_memory(config, rows_, longest, pictures);
    if (memory_.peak() <= settings_.memory) return {};
    return fail(Errc::kTooLarge, where + ": " + std::to_string(rows_) + " tokens need " +
                                     to_text(memory_) + "; " +
                                     std::to_string(settings_.memory / 1'000'000) +
                                     " MB are available: use fewer items");
  };
  MOESAIC_CHECK(fits(0, options.model));
  std::shared_ptr<const VisionWeights> vision;
  if (pictures) {
    MOESAIC_TRY(auto weights, load_vision(config, *model_.source, Compute::kBf16));
    vision = std::make_shared<const VisionWeights>(std::move(weights));
    model_.source->drop_pages();
  }
  MOESAIC_TRY(auto encoder,
              ItemEncoder::load(options.model, config, Compute::kBf16, vision, model_.pool));
  MOESAIC_TRY(const auto embedding, model_.source->get({kEmbedding}));
  std::uint64_t longest = 0;
  for (const auto& item : items) {
    MOESAIC_TRY(auto encoded, encoder.encode(item, true));
    auto sequence = known_sequence(config, std::move(encoded));
    if (!sequence) return fail(item.where, sequence.error());
    // A token is drawn from the row before it.
    for (auto row = sequence->request->prompt.size(); row < sequence->tokens.size(); ++row)
      answer_rows_.push_back(static_cast<std::uint32_t>(rows_ + row - 1));
    rows_ += sequence->tokens.size();
    longest = std::max<std::uint64_t>(longest, sequence->tokens.size());
    MOESAIC_CHECK(fits(longest, item.where));
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
    if (settings_.encoded) settings_.encoded(sequences_.size(), rows_);
  }
  hidden_.shrink_to_fit();
  all_rows_.resize(rows_);
  std::iota(all_rows_.begin(), all_rows_.end(), 0U);
  model_.source->drop_pages();
  return {};
}

Result<void> Calibration::enter(std::uint32_t layer) {
  const auto& config = model_.config;
  all_.reset();
  std::optional<std::uint32_t> found;
  if (settings_.kept && next_ == 0) {
    MOESAIC_TRY(found, settings_.kept->read(layer, hidden_));
    next_ = found.value_or(0);
  }
  for (; next_ <= layer; ++next_) {
    if (settings_.kept && next_ == layer && found != layer)
      MOESAIC_CHECK(settings_.kept->write(layer, hidden_));
    inputs_ = {};
    MOESAIC_TRY(inputs_, run_layer(model_, next_, sequences_, hidden_));
    model_.source->drop_pages();
  }
  const std::size_t top_k = inputs_.chosen.empty() ? 0 : config.experts_per_token;
  for (std::size_t m = 0; m < kModalities; ++m)
    chosen_by_[m].assign(config.experts[m], std::vector<std::uint32_t>());
  std::uint32_t row = 0;
  for (const auto& sequence : sequences_)
    for (std::size_t i = 0; i < sequence.tokens.size(); ++i, ++row) {
      auto& experts = chosen_by_[static_cast<std::size_t>(sequence.modality(i))];
      for (std::size_t k = 0; k < top_k; ++k)
        experts[static_cast<std::size_t>(inputs_.chosen[row * top_k + k])].push_back(row);
    }
  return {};
}

Result<std::shared_ptr<const InputStatistics>> Calibration::for_weight(const WeightId& id) {
  const auto kind = input_kind(model_.config, id.kind);
  if (!kind) return std::shared_ptr<const InputStatistics>();
  const auto layer = *kind == kLmHead ? model_.config.layers - 1 : id.layer;
  const WeightId asked{*kind, layer, id.modality, id.expert};
  if (last_id_ && same(*last_id_, asked)) return last_;
  last_.reset();
  last_id_.reset();
  if (layer + 1 < next_)
    return fail(Errc::kInvalidArgument, "calibration: layer " + std::to_string(layer) +
                                            " after layer " + std::to_string(next_ - 1));
  if (layer >= next_) MOESAIC_CHECK(enter(layer));
  MOESAIC_TRY(auto found, compute(asked));
  last_ = std::make_shared<const InputStatistics>(std::move(found));
  last_id_ = asked;
  return last_;
}

Result<InputStatistics> Calibration::compute(const WeightId& id) {
  const auto moment = [&](const std::vector<Bf16>& values, std::span<const std::uint32_t> rows) {
    return second_moment(values, values.size() / rows_, rows, *model_.pool);
  };
  switch (id.kind) {
    case kLmHead:
      return moment(inputs_.output, answer_rows_);
    case kQuery:
      return moment(inputs_.attention, all_rows_);
    case kAttnOut:
      return moment(inputs_.attended, all_rows_);
    case kDenseDown:
      return second_matrix(id, kDenseGate, kDenseUp);
    case kSharedDown:
      return second_matrix(id, kSharedGate, kSharedUp);
    case kExpertDown:
      return second_matrix(id, kExpertGate, kExpertUp);
    default:
      break;
  }
  if (!all_) all_ = moment(inputs_.feed_forward, all_rows_);
  if (id.kind != kExpertGate) return *all_;
  auto own =
      moment(inputs_.feed_forward, chosen_by_[static_cast<std::size_t>(id.modality)].at(id.expert));
  blend(own, *all_, settings_.kappa);
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
  model_.source->drop_pages();
  if (id.kind != kExpertDown) return hidden_moment(gate_up, all_rows_);
  const auto& rows = chosen_by_[static_cast<std::size_t>(id.modality)].at(id.expert);
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
  MomentSum sum(width);
  std::vector<Bf16> x, inner;
  for (std::size_t first = 0; first < rows.size(); first += kStepRows) {
    const auto count = std::min(kStepRows, rows.size() - first);
    x.resize(count * hidden);
    inner.resize(count * width);
    for (std::size_t i = 0; i < count; ++i)
      std::memcpy(x.data() + i * hidden, inputs_.feed_forward.data() + rows[first + i] * hidden,
                  hidden * sizeof(Bf16));
    linear_gate_up(gate_up, {Compute::kBf16, x.data(), count, hidden, hidden},
                   {Compute::kBf16, inner.data(), count, width, width}, *model_.pool);
    sum.add(inner, *model_.pool);
  }
  return sum.mean(*model_.pool);
}

}  // namespace moesaic
