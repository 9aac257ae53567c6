#include "common/engine/sequence.hpp"

#include <algorithm>

namespace moesaic {

std::optional<FinishReason> Sequence::finished() const {
  const auto& stop = request->stop_ids;
  if (generated() > 0 && std::find(stop.begin(), stop.end(), tokens.back()) != stop.end())
    return FinishReason::kStop;
  if (generated() >= request->max_tokens) return FinishReason::kLength;
  return std::nullopt;
}

void append_rows(const Sequence& sequence, std::size_t first, std::size_t rows, StepBatch& batch) {
  batch.parts.push_back({batch.ids.size(), rows, first, sequence.blocks});
  for (std::size_t i = first; i < first + rows; ++i) {
    batch.ids.push_back(sequence.tokens[i]);
    batch.positions.push_back(sequence.position(i));
    batch.modality.push_back(sequence.modality(i));
    batch.features.push_back(sequence.feature(i));
  }
}

}  // namespace moesaic
