#include "common/engine/step.hpp"

#include <algorithm>
#include <cstring>

#include "common/kernels/elementwise.hpp"
#include "common/kernels/linear.hpp"
#include "common/kernels/norm.hpp"

namespace moesaic {

void StepBatch::clear() {
  ids.clear();
  positions.clear();
  modality.clear();
  features.clear();
  parts.clear();
  logit_rows.clear();
  context = {};
}

AttentionShape DecoderStep::attention_shape(const ModelConfig& config, Compute kv) {
  return {kv, config.heads, config.kv_heads, config.head_dim};
}

DecoderStep::DecoderStep(const ModelConfig& config, std::shared_ptr<const DecoderWeights> weights,
                         Compute compute, KvCache& kv, ExpertBackend& experts, ThreadPool& pool,
                         MicroBatching micro, Tracer tracer)
    : config_(config),
      weights_(std::move(weights)),
      compute_(compute),
      kv_(kv),
      experts_(experts),
      pool_(pool),
      shape_(kv.shape()),
      rope_(config.head_dim, config.rope_theta, config.time_freqs),
      micro_(micro),
      tracer_(std::move(tracer)) {
  halves_[1].slot = 1;
}

void DecoderStep::set_taps(TapSink* taps) {
  taps_ = taps;
  experts_.set_taps(taps);
}

void DecoderStep::tap(const std::string& name, const FloatRows& x, std::size_t first,
                      std::size_t width, bool fine) {
  if (taps_ == nullptr || (fine && !taps_->fine())) return;
  if (first == 0 && width == x.cols()) {
    taps_->put(name, x.span(), std::array{width});
    return;
  }
  for (std::size_t r = 0; r < x.rows(); ++r)
    taps_->put(name, std::span(x.row(r) + first, width), std::array{width});
}

void DecoderStep::tap_operand(const std::string& name, const Operand& x) {
  if (taps_ == nullptr || !taps_->fine()) return;
  widened_.resize(x.cols);
  for (std::size_t r = 0; r < x.rows; ++r)
    taps_->put(name, std::span(f32_row(x, r, widened_.data()), x.cols), std::array{x.cols});
}

void DecoderStep::tap_heads(const std::string& name, std::size_t first, std::size_t heads) {
  if (taps_ == nullptr || !taps_->fine()) return;
  const std::size_t dim = config_.head_dim;
  for (std::size_t r = 0; r < qkv_.rows(); ++r)
    taps_->put(name, std::span<const float>(qkv_.row(r) + first * dim, heads * dim),
               std::array{heads, dim});
}

void DecoderStep::norm_row(const float* x, const AlignedVector<float>& weight,
                           const OperandOut& out, std::size_t row) const {
  const bool f32 = out.compute == Compute::kF32;
  rms_norm(x, weight.data(), config_.rms_norm_eps, config_.hidden, !f32,
           f32 ? out.f32(row) : nullptr, f32 ? nullptr : out.bf16(row));
}

/// Norms the rows of a half for products with `reader` (without data: for none): quantised while
/// they are in the nearest cache if it has an integer format, and if so left in `half.normed` only
/// if asked to `keep` them.
/// @return the rows as `reader` wants them
Operand DecoderStep::norm(const AlignedVector<float>& weight, const PackedMatrix& reader, bool keep,
                          Half& half) {
  const bool quantize =
      compute_ == Compute::kInt && reader.data != nullptr && is_integer(reader.format);
  const auto out = half.normed.resize(normed_form(compute_), half.rows, config_.hidden);
  if (!quantize) {
    for_rows(pool_, half.rows, [&](std::size_t r) { norm_row(half.x.row(r), weight, out, r); });
    return out.view();
  }
  half.quantized.resize(half.rows, config_.hidden, reader.padded_cols(), reader.a8_block());
  for_rows(pool_, half.rows, [&](std::size_t r) {
    thread_local AlignedVector<float> row;
    row.resize(config_.hidden);
    rms_norm(half.x.row(r), weight.data(), config_.rms_norm_eps, config_.hidden, true, row.data(),
             keep ? out.bf16(r) : nullptr);
    half.quantized.put(r, row.data());
  });
  return half.quantized.view();
}

/// One half, or two of about as many rows: cut between sequences or within a prompt's chunk, whose
/// second half then attends to what the first has put into the cache.
void DecoderStep::split(const StepBatch& batch) {
  const auto rows = batch.ids.size();
  const bool large = (micro_.rows > 0 && rows >= micro_.rows) ||
                     (micro_.sequences > 0 && batch.parts.size() >= micro_.sequences);
  // Taps want the rows of a layer in one piece.
  used_ = large && rows >= 2 && experts_.slots() > 1 && taps_ == nullptr ? 2 : 1;
  const auto cut = used_ == 2 ? rows / 2 : rows;
  for (std::size_t i = 0; i < used_; ++i) {
    auto& half = halves_[i];
    half.first = i * cut;
    half.rows = i == 0 ? cut : rows - cut;
    half.modality = std::span(batch.modality).subspan(half.first, half.rows);
    half.parts.clear();
    half.span = {};
    for (const auto& part : batch.parts) {
      const auto first = std::max(part.first_row, half.first);
      const auto last = std::min(part.first_row + part.rows, half.first + half.rows);
      if (first < last)
        half.parts.push_back({first - half.first, last - first,
                              part.first_index + (first - part.first_row), part.blocks});
    }
  }
}

void DecoderStep::embed(const StepBatch& batch, Half& h) {
  h.x.resize(h.rows, config_.hidden);
  for_rows(pool_, h.rows, [&](std::size_t r) {
    const auto row = h.first + r;
    if (batch.features[row] != nullptr) {
      std::memcpy(h.x.row(r), batch.features[row], config_.hidden * sizeof(float));
    } else {
      unpack_row(weights_->embedding, static_cast<std::size_t>(batch.ids[row]), h.x.row(r));
    }
  });
  const std::size_t half = config_.head_dim / 2;
  h.cos.resize(h.rows, half);
  h.sin.resize(h.rows, half);
  for_rows(pool_, h.rows, [&](std::size_t r) {
    rope_.table(batch.positions[h.first + r], h.cos.row(r), h.sin.row(r));
  });
}

void DecoderStep::attend(Half& half, std::uint32_t layer) {
  const auto& weights = weights_->layers[layer];
  const std::size_t rows = half.rows;
  const std::size_t heads = config_.heads;
  const std::size_t kv_heads = config_.kv_heads;
  const std::size_t dim = config_.head_dim;
  const std::string name = taps_ == nullptr ? std::string() : "layer." + std::to_string(layer);

  const auto normed = norm(weights.input_norm, weights.qkv, taps_ != nullptr, half);
  tap_operand(name + ".input_norm", half.normed.view());
  const auto qkv_cols = weights.qkv.rows;
  linear(weights.qkv, normed, qkv_.resize(rows, qkv_cols), qkv_cols, nullptr, pool_);
  tap(name + ".q_proj", qkv_, 0, heads * dim, true);
  tap(name + ".k_proj", qkv_, heads * dim, kv_heads * dim, true);
  tap(name + ".v_proj", qkv_, (heads + kv_heads) * dim, kv_heads * dim, true);

  // Taps want q and k turned in place; otherwise they are turned where they are used.
  RopeAngles angles{half.cos.row(0), half.sin.row(0)};
  if (taps_ != nullptr) {
    for_rows(pool_, rows, [&](std::size_t r) {
      rope_text(qkv_.row(r), heads + kv_heads, dim, half.cos.row(r), half.sin.row(r));
    });
    angles = {};
    tap_heads(name + ".q_rot", 0, heads);
    tap_heads(name + ".k_rot", heads, kv_heads);
  }
  for (const auto& part : half.parts) store_kv(part, layer, angles);

  const auto attended =
      attended_.resize(operand_form(weights.attn_out.format, compute_), rows, heads * dim);
  std::size_t pages = 0;
  for (const auto& part : half.parts)
    pages += kv_heads * kv_blocks_for(part.first_index + part.rows);
  pages_.resize(pages);
  tasks_.clear();
  std::size_t next = 0;
  for (const auto& part : half.parts) {
    const std::size_t blocks = kv_blocks_for(part.first_index + part.rows);
    for (std::uint32_t h = 0; h < kv_heads; ++h)
      for (std::size_t i = 0; i < blocks; ++i)
        pages_[next + h * blocks + i] = kv_.page(part.blocks[i], layer, h);
    auto out = attended;
    out.rows = part.rows;
    out.data = static_cast<std::byte*>(attended.data) +
               part.first_row * attended.stride * operand_bytes(attended.compute);
    tasks_.push_back({qkv_.row(part.first_row), qkv_cols, angles.from(part.first_row, dim),
                      part.rows, part.first_index, pages_.data() + next, blocks, out});
    next += kv_heads * blocks;
  }
  attention(shape_, tasks_, pool_);
  tap_operand(name + ".attn_heads", attended.view());
  if (taps_ == nullptr) {
    linear_add(weights.attn_out, attended.view(), half.x.data(), config_.hidden, nullptr, pool_);
    return;
  }
  linear(weights.attn_out, attended.view(), branch_.resize(rows, config_.hidden), config_.hidden,
         nullptr, pool_);
  tap(name + ".attn_out", branch_, 0, config_.hidden, true);
  for_rows(pool_, rows,
           [&](std::size_t r) { add_to(branch_.row(r), config_.hidden, half.x.row(r)); });
}

/// Puts k and v of a part's rows into their pages.
void DecoderStep::store_kv(const StepPart& part, std::uint32_t layer, const RopeAngles& angles) {
  constexpr std::size_t kSlots = 16;  // of a line of int8 keys: no two threads write to one
  const std::size_t dim = config_.head_dim;
  const std::size_t first_slot = part.first_index / kSlots;
  const std::size_t end = part.first_index + part.rows;
  pool_.parallel_for((end + kSlots - 1) / kSlots - first_slot, [&](std::size_t i) {
    const std::size_t from = std::max(part.first_index, (first_slot + i) * kSlots);
    const std::size_t to = std::min(end, (first_slot + i + 1) * kSlots);
    const std::size_t row = part.first_row + (from - part.first_index);
    const float* k = qkv_.row(row) + config_.heads * dim;
    thread_local std::vector<std::byte*> pages;
    pages.resize(config_.kv_heads);
    for (std::uint32_t h = 0; h < config_.kv_heads; ++h)
      pages[h] = kv_.page(part.blocks[from / kPageTokens], layer, h);
    append_kv(shape_, pages.data(), from % kPageTokens,
              {k, k + config_.kv_heads * dim, qkv_.cols(), to - from, angles.from(row, dim)});
  });
}

/// Hands the experts their rows, and computes the shared expert (or the dense layer) meanwhile.
Result<void> DecoderStep::begin_feed_forward(const StepBatch& batch, Half& half,
                                             std::uint32_t layer) {
  const auto& weights = weights_->layers[layer];
  const std::string name = taps_ == nullptr ? std::string() : "layer." + std::to_string(layer);
  const auto normed =
      norm(weights.post_norm, weights.ffn.gate_up, weights.moe || taps_ != nullptr, half);
  tap_operand(name + ".post_norm", half.normed.view());
  if (weights.moe) {
    auto context = batch.context;
    half.span = tracer_.start("moe layer", SpanKind::kClient, context.trace);
    context.trace = half.span.context();
    if (half.span.recording()) {
      half.span.set("moesaic.moe.layer", std::int64_t{layer});
      half.span.set("moesaic.moe.rows", static_cast<std::int64_t>(half.rows));
    }
    const auto quantized = normed.compute == Compute::kInt ? normed : Operand();
    MOESAIC_CHECK(
        experts_.submit({layer, half.normed.view(), half.modality, context, quantized}, half.slot));
  }
  if (weights.ffn.gate_up.data == nullptr) return {};
  half.shared.resize(half.rows, config_.hidden);
  ffn_out_.resize(half.rows);
  for (std::size_t r = 0; r < half.rows; ++r) ffn_out_[r] = half.shared.row(r);
  const FfnTask task{&weights.ffn.gate_up, &weights.ffn.down, {}, {},
                     ffn_out_.data(),      Compute::kF32};
  ffn(std::span(&task, 1), normed, ffn_, pool_);
  return {};
}

Result<void> DecoderStep::end_feed_forward(Half& half, std::uint32_t layer) {
  const auto& weights = weights_->layers[layer];
  const std::size_t rows = half.rows;
  const std::size_t hidden = config_.hidden;
  const std::string name = taps_ == nullptr ? std::string() : "layer." + std::to_string(layer);
  if (!weights.moe) {
    tap(name + ".mlp_out", half.shared, 0, hidden, true);
    for_rows(pool_, rows,
             [&](std::size_t r) { add_to(half.shared.row(r), hidden, half.x.row(r)); });
  } else {
    const bool shared = weights.ffn.gate_up.data != nullptr;
    if (taps_ != nullptr) branch_.resize(rows, hidden);
    // x += routed + shared, while the row is in the nearest cache.
    const auto add = [&](std::size_t r, Compute form, const void* routed) {
      thread_local AlignedVector<float> sum;
      sum.resize(hidden);
      widen(form, routed, hidden, sum.data());
      if (taps_ != nullptr) std::copy(sum.begin(), sum.end(), branch_.row(r));
      if (shared) add_to(half.shared.row(r), hidden, sum.data());
      add_to(sum.data(), hidden, half.x.row(r));
    };
    const auto gathered = experts_.gather(add, half.slot);
    if (!gathered) half.span.fail("experts");
    half.span.end();
    MOESAIC_CHECK(gathered);
    tap(name + ".routed", branch_, 0, hidden, true);
    if (shared) tap(name + ".shared", half.shared, 0, hidden, true);
    if (taps_ != nullptr && shared)
      for (std::size_t r = 0; r < rows; ++r) add_to(half.shared.row(r), hidden, branch_.row(r));
    tap(name + ".mlp_out", branch_, 0, hidden, true);
  }
  tap("layer." + std::to_string(layer) + ".out", half.x, 0, hidden, false);
  return {};
}

Result<std::span<const float>> DecoderStep::run(const StepBatch& batch) {
  experts_.begin_step();
  split(batch);
  const auto halves = std::span(halves_).first(used_);
  for (auto& half : halves) {
    embed(batch, half);
    tap("inputs_embeds", half.x, 0, config_.hidden, false);
  }
  for (std::uint32_t layer = 0; layer < config_.layers; ++layer)
    for (auto& half : halves) {
      if (layer > 0) MOESAIC_CHECK(end_feed_forward(half, layer - 1));
      attend(half, layer);
      MOESAIC_CHECK(begin_feed_forward(batch, half, layer));
    }
  for (auto& half : halves) MOESAIC_CHECK(end_feed_forward(half, config_.layers - 1));
  logits(batch);
  return logits_.span();
}

/// Only the rows whose logits are wanted go on; taps want the norm of all.
void DecoderStep::logits(const StepBatch& batch) {
  if (taps_ != nullptr) {
    const auto& x = halves_[0].x;
    branch_.resize(x.rows(), config_.hidden);
    for_rows(pool_, x.rows(), [&](std::size_t r) {
      rms_norm(x.row(r), weights_->final_norm.data(), config_.rms_norm_eps, config_.hidden,
               rounds_to_bf16(compute_), branch_.row(r), nullptr);
    });
    tap("final_norm", branch_, 0, config_.hidden, false);
  }
  const std::size_t wanted = batch.logit_rows.size();
  const auto last = last_.resize(normed_form(compute_), wanted, config_.hidden);
  for_rows(pool_, wanted, [&](std::size_t i) {
    const std::size_t row = batch.logit_rows[i];
    const auto& half = halves_[used_ == 2 && row >= halves_[1].first ? 1 : 0];
    norm_row(half.x.row(row - half.first), weights_->final_norm, last, i);
  });
  logits_.resize(wanted, config_.vocab_size);
  if (wanted > 0)
    linear(weights_->lm_head, last.view(), logits_.data(), config_.vocab_size, nullptr, pool_);
  tap("logits", logits_, 0, config_.vocab_size, false);
}

}  // namespace moesaic
