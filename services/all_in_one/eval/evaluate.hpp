#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/engine/model_loader.hpp"
#include "services/all_in_one/eval/chat_items.hpp"
#include "services/all_in_one/eval/divergence.hpp"

namespace moesaic {

/// What to measure, and how.
struct EvalSettings {
  bool accuracy = true;
  bool perplexity = true;
  bool kl = false;  ///< needs a reference
  std::uint32_t max_tokens = 160;
  std::size_t together = 32;  ///< items in memory and in the engine at once, > 0
  std::filesystem::path temp_dir = std::filesystem::temp_directory_path();
  /// Told now and then: items done of one pass.
  std::function<void(const std::string& pass, std::size_t items)> progress;
};

/// Numbers of one task or of all.
struct EvalScore {
  std::string task;
  std::size_t items = 0;
  std::size_t right = 0;
  std::size_t judged = 0;           ///< items that say what a reference made of them
  std::size_t reference_right = 0;  ///< of these
  std::size_t same_verdict = 0;     ///< of these: right here and there, or wrong in both
  Perplexity perplexity, reference_perplexity;
  Divergence divergence;

  void add(const EvalScore& other);
};

struct EvalReport {
  std::vector<EvalScore> tasks;  ///< in order of appearance
  EvalScore all;
};

/// Measures a model on items with known answers. Accuracy: greedy answers. Perplexity and
/// divergence: the reference answers' tokens, given the ones before (the prompt does not count),
/// over the drawable ids. The reference runs first, its logits go to a temporary file, and it is
/// out of memory before the model is loaded.
///
/// @param reference none: no divergence
/// @errors kInvalidArgument: `kl` without a reference, a reference that reads the items
///         differently; those of loading, reading and running, items by file and line
[[nodiscard]] Result<EvalReport> evaluate(const ModelOptions& model,
                                          const std::optional<ModelOptions>& reference,
                                          std::span<const ChatItem> items,
                                          const EvalSettings& settings);

}  // namespace moesaic
