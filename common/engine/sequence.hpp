#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "common/engine/request.hpp"
#include "common/engine/step.hpp"
#include "common/kv_cache/kv_cache.hpp"
#include "common/model/positions.hpp"

namespace moesaic {

/// One sequence on its way through an engine. Owned by the scheduler, touched by the engine thread
/// only.
struct Sequence {
  using Clock = std::chrono::steady_clock;

  GenerateRequestPtr request;
  PromptLayout layout;
  std::vector<std::int32_t> tokens;  ///< prompt and what was drawn
  std::vector<KvBlock> blocks;
  std::size_t computed = 0;  ///< leading tokens whose keys and values are in the cache

  Clock::time_point arrived = Clock::now();
  std::optional<Clock::time_point> begun;        ///< its first step
  std::optional<Clock::time_point> first_token;  ///< drawn here

  std::size_t generated() const { return tokens.size() - request->prompt.size(); }
  /// Why nothing more is to be drawn, if that is so.
  std::optional<FinishReason> finished() const;
  /// Everything but the last token is computed: the next step draws a token from a single row.
  bool decoding() const { return computed + 1 == tokens.size() && generated() > 0; }

  std::array<std::int32_t, 3> position(std::size_t index) const {
    if (index < layout.positions.size()) return layout.positions[index];
    const auto p = static_cast<std::int32_t>(index) + layout.delta;
    return {p, p, p};
  }
  /// Drawn tokens are text, also when they are computed again after a preemption.
  Modality modality(std::size_t index) const {
    return index < layout.modality.size() ? layout.modality[index] : Modality::kText;
  }
  /// The visual embedding that replaces the table's at `index`, or null.
  const float* feature(std::size_t index) const {
    for (std::size_t i = 0; i < layout.spans.size(); ++i) {
      const auto& span = layout.spans[i];
      if (index >= span.first && index < span.first + span.rows) {
        const auto& visual = *request->visuals[i];
        return visual.values.data() + (index - span.first) * visual.hidden;
      }
    }
    return nullptr;
  }
};

/// Appends tokens [first, first + rows) of a sequence to a batch; logits are asked for by the
/// caller.
/// @pre the sequence has blocks for them
void append_rows(const Sequence& sequence, std::size_t first, std::size_t rows, StepBatch& batch);

}  // namespace moesaic
