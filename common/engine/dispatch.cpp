#include "common/engine/dispatch.hpp"

#include <algorithm>
#include <array>

#include "common/kernels/elementwise.hpp"

namespace moesaic {

Dispatch::Dispatch(const ModelConfig& config, std::shared_ptr<const RouterWeights> gates)
    : config_(config), gates_(std::move(gates)) {}

WeightFormat Dispatch::expert_format(std::uint32_t layer, std::size_t modality) const {
  const auto& formats = gates_->expert_format;
  return formats.empty() ? WeightFormat::kBf16 : formats[layer][modality];
}

/// Rows of one modality through the gate. Its weights (0.7 MB for 64 experts of 2560) are read once
/// for every few rows: the threads share them where there are few.
void Dispatch::compute_logits(const MoeStep& step, const Choice& choice, const RouterGate& gate,
                              ThreadPool& pool) {
  constexpr std::size_t kFewRows = 8;
  const std::size_t rows = choice.rows.size(), groups = (rows + kRouterRows - 1) / kRouterRows;
  const std::size_t parts = rows < kFewRows ? pool.size() : 1;
  pool.parallel_for(groups * parts, [&](std::size_t task) {
    const std::size_t first = task / parts * kRouterRows, part = task % parts;
    const std::size_t count = std::min(kRouterRows, rows - first);
    thread_local AlignedVector<float> memory;
    memory.resize(kRouterRows * step.x.cols);
    const float* u[kRouterRows];
    float* logits[kRouterRows];
    for (std::size_t i = 0; i < count; ++i) {
      const auto row = choice.rows[first + i];
      u[i] = f32_row(step.x, row, memory.data() + i * step.x.cols);
      logits[i] = logits_.row(row);
    }
    router_logits(gate, {u, count}, part * gate.experts / parts, (part + 1) * gate.experts / parts,
                  {logits, count});
  });
}

void Dispatch::choose(const MoeStep& step, ThreadPool& pool, Choices& choices) {
  const std::size_t top_k = config_.experts_per_token;
  const std::size_t hidden = config_.hidden;
  std::size_t widest = 0;
  for (const auto& gate : gates_->layers[step.layer]) widest = std::max(widest, gate.experts);
  logits_.resize(step.x.rows, widest);
  for (std::size_t m = 0; m < kModalities; ++m) {
    auto& choice = choices[m];
    const auto& gate = gates_->layers[step.layer][m];
    choice.rows.clear();
    for (std::size_t r = 0; r < step.modality.size(); ++r)
      if (static_cast<std::size_t>(step.modality[r]) == m)
        choice.rows.push_back(static_cast<std::uint32_t>(r));
    choice.ids.resize(choice.rows.size() * top_k);
    choice.weights.resize(choice.rows.size() * top_k);
    choice.chosen.resize(choice.rows.size());
    choice.x = step.x;
    if (const auto format = expert_format(step.layer, m);
        is_integer(format) && !choice.rows.empty()) {
      const auto padded = padded_cols(format, hidden);
      const auto block = a8_block(padded);
      const bool given = step.quantized.stride == padded && step.quantized.block == block;
      choice.x = given ? step.quantized : choice.quantized.quantize(step.x, padded, block, pool);
    }
    compute_logits(step, choice, gate, pool);
    for_rows(pool, choice.rows.size(), [&](std::size_t i) {
      router_choose(gate, logits_.row(choice.rows[i]), choice.ids.data() + i * top_k,
                    choice.weights.data() + i * top_k);
      std::uint64_t mask = 0;
      for (std::size_t k = 0; k < top_k; ++k) mask |= std::uint64_t{1} << choice.ids[i * top_k + k];
      choice.chosen[i] = mask;
    });
  }
  if (taps_ != nullptr) tap(step, choices);
}

void Dispatch::tap(const MoeStep& step, const Choices& choices) {
  // The goldens have one table over all tokens, so the modalities are put back in row order.
  const std::size_t top_k = config_.experts_per_token;
  std::vector<std::int32_t> ids(step.x.rows * top_k);
  std::vector<float> weights(step.x.rows * top_k);
  for (const auto& choice : choices)
    for (std::size_t i = 0; i < choice.rows.size(); ++i)
      for (std::size_t k = 0; k < top_k; ++k) {
        ids[choice.rows[i] * top_k + k] = static_cast<std::int32_t>(choice.ids[i * top_k + k]);
        weights[choice.rows[i] * top_k + k] = choice.weights[i * top_k + k];
      }
  const std::string name = "router." + std::to_string(step.layer);
  taps_->put(name + ".logits", logits_.span(), std::array{logits_.cols()});
  taps_->put(name + ".index", ids, std::array{top_k});
  taps_->put(name + ".weight", weights, std::array{top_k});
}

}  // namespace moesaic
