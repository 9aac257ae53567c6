#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "common/engine/model_loader.hpp"
#include "common/engine/request.hpp"
#include "common/engine/sequence.hpp"
#include "common/media/preprocess.hpp"
#include "common/model/vision_tower.hpp"
#include "common/tokenizer/tokenizer.hpp"
#include "services/all_in_one/eval/chat_items.hpp"

namespace moesaic {

/// An item as a model reads it.
struct EncodedItem {
  std::vector<std::int32_t> prompt;  ///< placeholders expanded
  std::vector<VisualFeaturesPtr> visuals;
  std::vector<std::int32_t> answer;  ///< chain of thought, answer and end token
  bool thinking = false;             ///< the prompt leaves the model in a chain of thought
};

/// Prompt and answer as one sequence for a pass with known tokens.
/// @errors those of `layout_prompt`
[[nodiscard]] Result<Sequence> known_sequence(const ModelConfig& config, EncodedItem item);

/// Turns items into tokens and features, with the tokenizer, template, preprocessing and vision
/// tower of one model. One thread; kernels on the model's pool.
class ItemEncoder {
 public:
  /// @param model_dir of the tokenizer and the preprocessing
  /// @param vision    null: items with pictures are refused
  [[nodiscard]] static Result<ItemEncoder> load(const std::filesystem::path& model_dir,
                                                const ModelConfig& config, Compute compute,
                                                std::shared_ptr<const VisionWeights> vision,
                                                std::shared_ptr<ThreadPool> pool);

  /// @errors the text begins with the item's file and line: pictures that do not decode, a prompt
  ///         that cannot be rendered, kContextLength; kInvalidArgument: `with_answer` and a
  ///         thinking item has no reasoning
  [[nodiscard]] Result<EncodedItem> encode(const ChatItem& item, bool with_answer);

  const std::shared_ptr<const Tokenizer>& tokenizer() const { return tokenizer_; }
  /// Ids from here on are padding.
  std::size_t drawable_ids() const;
  /// Tokens that end an answer.
  std::vector<std::int32_t> stop_ids() const;

 private:
  ItemEncoder() = default;
  Result<EncodedItem> encode_here(const ChatItem& item, bool with_answer);
  Result<VisualFeaturesPtr> features(const ItemVisual& visual);
  Result<std::vector<std::int32_t>> answer_ids(const ChatItem& item, bool thinking) const;

  ModelConfig config_;
  ChatStyle style_ = ChatStyle::kErnieVl;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<ThreadPool> pool_;
  PreprocessConfig preprocess_;
  std::unique_ptr<VisionTower> tower_;
};

}  // namespace moesaic
