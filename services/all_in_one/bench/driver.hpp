#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/engine/local_experts.hpp"
#include "common/engine/model_loader.hpp"
#include "common/engine/sequence.hpp"
#include "common/engine/step.hpp"

namespace moesaic {

/// Counts the distinct experts that a step reads, by modality.
class ExpertCounter final : public TapSink {
 public:
  void put(const std::string&, std::span<const float>, std::span<const std::size_t>) override {}
  void put(const std::string& name, std::span<const std::int32_t> ids,
           std::span<const std::size_t> shape) override;
  bool fine() const override { return false; }
  /// Experts since the last call.
  std::size_t take();

 private:
  std::size_t distinct_ = 0;
};

/// The decoder over a cache of its own, driven step by step as the engine drives it: sequences of
/// text tokens that differ, so that the experts do.
class BenchDriver {
 public:
  /// @param tokens most tokens of a sequence
  BenchDriver(const LoadedModel& model, Compute kv, std::size_t sequences, std::size_t tokens);

  /// Keys and values of the first `tokens` tokens of all sequences, by a formula and not by the
  /// model.
  void fill(std::size_t tokens);
  /// All sequences compute tokens [first, first + rows); logits of the last row each.
  [[nodiscard]] Result<void> run(std::size_t first, std::size_t rows);
  /// The same, counting expert matrices.
  [[nodiscard]] Result<std::size_t> count_experts(std::size_t first, std::size_t rows);
  /// Bytes of keys and values of one token.
  double token_bytes() const;

 private:
  const LoadedModel& model_;
  PagedKvCache kv_;
  LocalExperts experts_;
  DecoderStep step_;
  ExpertCounter counter_;
  std::vector<Sequence> sequences_;
  StepBatch batch_;
};

}  // namespace moesaic
