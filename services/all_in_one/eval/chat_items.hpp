#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/result.hpp"
#include "common/chat/chat_format.hpp"

namespace moesaic {

/// A picture of an item: a file, or the bytes of a data URL.
struct ItemPicture {
  std::filesystem::path file;                ///< empty: `bytes` has it
  std::shared_ptr<const std::string> bytes;  ///< null: to be read from `file`
};

/// A picture, or the frames of a video.
struct ItemVisual {
  bool video = false;
  double fps = 0;  ///< of a video, > 0
  std::vector<ItemPicture> frames;
};

/// One conversation of a JSONL file with the answer that is expected.
struct ChatItem {
  enum class Match : std::uint8_t {
    kExact,     ///< the answer, without white space around it, is `answer`
    kContains,  ///< every string of `contains` is in the answer
  };

  std::string where;  ///< `file:line`, for errors
  std::string id, task;
  bool thinking = false;
  std::vector<ChatMessage> messages;  ///< up to the turn that is to be answered
  std::vector<ItemVisual> visuals;    ///< one per visual part, in order of the parts
  std::string answer;
  std::optional<std::string> reasoning;  ///< the chain of thought before `answer`
  Match match = Match::kExact;
  std::vector<std::string> contains;
  std::optional<bool> reference_correct;  ///< what a reference made of it
};

/// Reads conversations, one JSON object a line; blank lines are left out:
///   {"id", "task": text, "thinking": bool, "messages": [{"role", "content", "reasoning_content"}],
///    "answer", "reasoning": text, "match": "exact" | "contains", "contains": [text],
///    "reference_correct": bool}
/// `messages` is required. Content is a text or a list of {"type": "text", "text"},
/// {"type": "image", "image"}, {"type": "image_url", "image_url": {"url"}} and
/// {"type": "video", "frames": [..], "fps"}; pictures are data URLs or paths from the file's
/// folder. Without `answer` the last message, of the assistant, is the answer.
///
/// @param limit of items read; 0: all
/// @errors kInvalidArgument: not JSON, an unknown or missing key, a wrong type, nothing in the
///         file; kNotFound: no such file or picture; kUnsupported: another part, URL or match;
///         kTooLarge. The text names file and line
[[nodiscard]] Result<std::vector<ChatItem>> read_chat_items(const std::filesystem::path& path,
                                                            std::size_t limit = 0);

}  // namespace moesaic
