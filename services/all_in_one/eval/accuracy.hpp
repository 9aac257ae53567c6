#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/engine/model_loader.hpp"
#include "services/all_in_one/eval/item_encoder.hpp"

namespace moesaic {

/// True if the answer's content is what the item expects. White space around either is left out.
bool is_right(const ChatItem& item, std::string_view content);

/// Answers the items greedily, all at once in one engine, as a server would.
/// @param items with their prompts and features
/// @return per item what follows the chain of thought
/// @errors those of the engine
[[nodiscard]] Result<std::vector<std::string>> answer_items(const LoadedModel& model,
                                                            const ItemEncoder& encoder,
                                                            std::span<const EncodedItem> items,
                                                            std::uint32_t max_tokens);

}  // namespace moesaic
