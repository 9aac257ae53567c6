#pragma once

#include <functional>
#include <memory>

#include "common/engine/local_experts.hpp"
#include "common/engine/model_loader.hpp"
#include "common/engine/step.hpp"
#include "services/all_in_one/eval/item_encoder.hpp"

namespace moesaic {

/// Runs a model over prompts with known answers (teacher forcing) and gives the logits from which
/// each token of the answer would have been drawn. One thread; kernels on the model's pool.
class KnownAnswers {
 public:
  /// Sees position `index` of the answer: the drawable ids' logits, and the token that follows.
  using OnPosition = std::function<Result<void>(std::size_t index, std::span<const float> logits,
                                                std::int32_t token)>;

  /// @param model        outlives this
  /// @param drawable_ids ids from here on are padding
  KnownAnswers(const LoadedModel& model, std::size_t drawable_ids);

  /// @errors those of the step, of the cache (no memory) and of `on_position`
  [[nodiscard]] Result<void> run(const EncodedItem& item, const OnPosition& on_position);

 private:
  const LoadedModel& model_;
  std::size_t drawable_ids_;
  LocalExperts experts_;
};

}  // namespace moesaic
