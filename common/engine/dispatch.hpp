#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/base/thread_pool.hpp"
#include "common/engine/expert_backend.hpp"
#include "common/kernels/quantize_rows.hpp"
#include "common/model/activations.hpp"
#include "common/model/expert_table.hpp"
#include "common/model/weights.hpp"

namespace moesaic {

/// The gate's answer for the rows of one modality of a step.
struct Choice {
  std::vector<std::uint32_t> rows;    ///< rows of the step, ascending
  std::vector<std::uint32_t> ids;     ///< [rows.size() * top_k]
  std::vector<float> weights;         ///< [rows.size() * top_k]
  std::vector<std::uint64_t> chosen;  ///< [rows.size()] mask of ids
  Operand x;                          ///< all rows of the step in the form that the experts read
  QuantizedRows quantized;            ///< its memory, unless the step has these
};

using Choices = std::array<Choice, kModalities>;

/// Gate and split by modality: the first half of a dispatch, a
/// plain class used by every back end and by the router's service thread. One thread at a time.
class Dispatch {
 public:
  Dispatch(const ModelConfig& config, std::shared_ptr<const RouterWeights> gates);

  /// Chooses experts for every row of the step, per modality.
  void choose(const MoeStep& step, ThreadPool& pool, Choices& choices);
  void set_taps(TapSink* taps) { taps_ = taps; }

  const ModelConfig& config() const { return config_; }

 private:
  WeightFormat expert_format(std::uint32_t layer, std::size_t modality) const;
  void compute_logits(const MoeStep& step, const Choice& choice, const RouterGate& gate,
                      ThreadPool& pool);
  void tap(const MoeStep& step, const Choices& choices);

  ModelConfig config_;
  std::shared_ptr<const RouterWeights> gates_;
  FloatRows logits_;
  TapSink* taps_ = nullptr;
};

}  // namespace moesaic
