#include "services/all_in_one/eval/known_answer.hpp"

#include <algorithm>

#include "common/engine/make_engine.hpp"

namespace moesaic {
namespace {

/// Rows of a step; logits of so many rows are in memory at once.
constexpr std::size_t kChunk = 512;

}  // namespace

KnownAnswers::KnownAnswers(const LoadedModel& model, std::size_t drawable_ids)
    : model_(model),
      drawable_ids_(drawable_ids),
      experts_(model.config, model.gates, model.experts.front(), *model.pool) {}

Result<void> KnownAnswers::run(const EncodedItem& item, const OnPosition& on_position) {
  const auto prompt = item.prompt.size();
  MOESAIC_TRY(auto sequence, known_sequence(model_.config, item));
  // What follows the last token is not asked for.
  const auto tokens = sequence.tokens.size() - 1;
  EngineSettings settings;
  settings.max_context = tokens;
  settings.limits.max_running = 1;
  MOESAIC_TRY(const auto kv, make_kv_cache(model_, settings));
  while (const auto block = kv->allocate()) sequence.blocks.push_back(*block);
  DecoderStep step(model_.config, model_.decoder, model_.compute, *kv, experts_, *model_.pool);
  StepBatch batch;
  for (std::size_t first = 0; first < tokens; first += kChunk) {
    const auto rows = std::min(kChunk, tokens - first);
    batch.clear();
    append_rows(sequence, first, rows, batch);
    for (std::size_t i = 0; i < rows; ++i)
      if (first + i + 1 >= prompt) batch.logit_rows.push_back(static_cast<std::uint32_t>(i));
    MOESAIC_TRY(const auto logits, step.run(batch));
    for (std::size_t i = 0; i < batch.logit_rows.size(); ++i) {
      const auto next = first + batch.logit_rows[i] + 1;
      MOESAIC_CHECK(on_position(next - prompt,
                                logits.subspan(i * model_.config.vocab_size, drawable_ids_),
                                sequence.tokens[next]));
    }
  }
  return {};
}

}  // namespace moesaic
