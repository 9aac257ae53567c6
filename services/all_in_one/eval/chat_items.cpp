#include "services/all_in_one/eval/chat_items.hpp"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <span>

#include "common/api/data_url.hpp"
#include "common/media/image/image.hpp"

namespace moesaic {
namespace {

namespace json = boost::json;

/// Of one line: a data URL is at most 4/3 of a picture.
constexpr std::size_t kMaxLine = std::size_t{64} << 20;

/// One object: its members by name and type, and no others.
class Members {
 public:
  static Result<Members> of(const json::value& value, std::string path,
                            std::initializer_list<std::string_view> known) {
    const auto* object = value.if_object();
    if (object == nullptr) return fail(Errc::kInvalidArgument, path + ": an object is expected");
    for (const auto& member : *object)
      if (std::find(known.begin(), known.end(), member.key()) == known.end())
        return fail(Errc::kInvalidArgument, (path.empty() ? "" : path + ": ") + "unknown key \"" +
                                                std::string(member.key()) + "\"");
    return Members(*object, std::move(path));
  }

  std::string path(std::string_view key) const {
    return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
  }
  const json::value* find(std::string_view key) const { return object_->if_contains(key); }
  Result<const json::value*> required(std::string_view key) const {
    if (const auto* value = find(key)) return value;
    return fail(Errc::kInvalidArgument, path(key) + " is missing");
  }
  Result<std::optional<std::string>> text(std::string_view key) const {
    const auto* value = find(key);
    if (value == nullptr) return std::optional<std::string>();
    if (const auto* string = value->if_string())
      return std::optional<std::string>(std::string(*string));
    return fail(Errc::kInvalidArgument, path(key) + ": a string is expected");
  }
  Result<std::string> required_text(std::string_view key) const {
    MOESAIC_TRY(const auto* value, required(key));
    if (const auto* string = value->if_string()) return std::string(*string);
    return fail(Errc::kInvalidArgument, path(key) + ": a string is expected");
  }
  Result<std::optional<bool>> boolean(std::string_view key) const {
    const auto* value = find(key);
    if (value == nullptr) return std::optional<bool>();
    if (const auto* flag = value->if_bool()) return std::optional<bool>(*flag);
    return fail(Errc::kInvalidArgument, path(key) + ": true or false is expected");
  }
  Result<std::vector<std::string>> texts(std::string_view key) const {
    MOESAIC_TRY(const auto* value, required(key));
    std::vector<std::string> out;
    if (const auto* array = value->if_array()) {
      for (const auto& entry : *array)
        if (const auto* string = entry.if_string()) out.emplace_back(*string);
      if (!array->empty() && out.size() == array->size()) return out;
    }
    return fail(Errc::kInvalidArgument, path(key) + ": a list of strings is expected");
  }

 private:
  Members(const json::object& object, std::string path)
      : object_(&object), path_(std::move(path)) {}
  const json::object* object_;
  std::string path_;
};

/// One line of a file.
class LineReader {
 public:
  explicit LineReader(std::filesystem::path folder) : folder_(std::move(folder)) {}

  Result<ChatItem> read(std::string_view line) {
    item_ = {};
    boost::system::error_code error;
    const auto value = json::parse(line, error);
    if (error) return fail(Errc::kInvalidArgument, "not JSON: " + error.message());
    MOESAIC_TRY(const auto members,
                Members::of(value, "",
                            {"id", "task", "thinking", "messages", "answer", "reasoning", "match",
                             "contains", "reference_correct"}));
    MOESAIC_TRY(const auto id, members.text("id"));
    MOESAIC_TRY(const auto task, members.text("task"));
    MOESAIC_TRY(const auto thinking, members.boolean("thinking"));
    MOESAIC_TRY(item_.reference_correct, members.boolean("reference_correct"));
    item_.id = id.value_or("");
    item_.task = task.value_or("");
    item_.thinking = thinking.value_or(false);
    MOESAIC_TRY(const auto* messages, members.required("messages"));
    const auto* list = messages->if_array();
    if (list == nullptr || list->empty())
      return fail(Errc::kInvalidArgument, "messages: a list of messages is expected");
    for (std::size_t i = 0; i < list->size(); ++i)
      MOESAIC_CHECK(add_message((*list)[i], "messages[" + std::to_string(i) + "]"));
    MOESAIC_CHECK(set_answer(members));
    MOESAIC_CHECK(set_match(members));
    return std::move(item_);
  }

 private:
  Result<void> add_message(const json::value& value, const std::string& path) {
    MOESAIC_TRY(const auto members,
                Members::of(value, path, {"role", "content", "reasoning_content"}));
    ChatMessage message;
    MOESAIC_TRY(message.role, members.required_text("role"));
    MOESAIC_TRY(message.reasoning, members.text("reasoning_content"));
    MOESAIC_TRY(const auto* content, members.required("content"));
    if (const auto* text = content->if_string()) {
      message.parts.push_back({ContentPart::Kind::kText, std::string(*text)});
    } else if (const auto* parts = content->if_array()) {
      for (std::size_t i = 0; i < parts->size(); ++i) {
        MOESAIC_TRY(auto part, read_part((*parts)[i],
                                         members.path("content") + "[" + std::to_string(i) + "]"));
        message.parts.push_back(std::move(part));
      }
    } else {
      return fail(Errc::kInvalidArgument,
                  members.path("content") + ": a string or a list of parts is expected");
    }
    item_.messages.push_back(std::move(message));
    return {};
  }

  Result<ContentPart> read_part(const json::value& value, const std::string& path) {
    MOESAIC_TRY(const auto members,
                Members::of(value, path, {"type", "text", "image", "image_url", "frames", "fps"}));
    MOESAIC_TRY(const auto type, members.required_text("type"));
    if (type == "text") {
      MOESAIC_TRY(auto text, members.required_text("text"));
      return ContentPart{ContentPart::Kind::kText, std::move(text)};
    }
    ItemVisual visual;
    std::vector<std::string> names;
    if (type == "image") {
      MOESAIC_TRY(names.emplace_back(), members.required_text("image"));
    } else if (type == "image_url") {
      MOESAIC_TRY(const auto* url, members.required("image_url"));
      MOESAIC_TRY(const auto inner, Members::of(*url, members.path("image_url"), {"url"}));
      MOESAIC_TRY(names.emplace_back(), inner.required_text("url"));
    } else if (type == "video") {
      visual.video = true;
      MOESAIC_TRY(names, members.texts("frames"));
      MOESAIC_TRY(const auto* fps, members.required("fps"));
      boost::system::error_code error;
      visual.fps = fps->to_number<double>(error);
      if (error || !std::isfinite(visual.fps) || visual.fps <= 0)
        return fail(Errc::kInvalidArgument, members.path("fps") + ": a number > 0 is expected");
    } else {
      return fail(Errc::kUnsupported, members.path("type") + ": \"" + type +
                                          "\", expected text, image, image_url or video");
    }
    for (const auto& name : names) {
      auto picture = find_picture(name);
      if (!picture) return fail(path, picture.error());
      visual.frames.push_back(std::move(*picture));
    }
    item_.visuals.push_back(std::move(visual));
    return ContentPart{type == "video" ? ContentPart::Kind::kVideo : ContentPart::Kind::kImage, {}};
  }

  Result<ItemPicture> find_picture(const std::string& name) const {
    if (name.starts_with("data:")) {
      MOESAIC_TRY(auto bytes, decode_data_url(name, ImageLimits{}.max_bytes));
      return ItemPicture{{}, std::make_shared<const std::string>(std::move(bytes))};
    }
    if (name.find("://") != std::string::npos)
      return fail(Errc::kUnsupported, "\"" + name + "\": a path or a data URL is expected");
    const auto file = folder_ / name;
    std::error_code error;
    if (!std::filesystem::is_regular_file(file, error))
      return fail(Errc::kNotFound, "no picture " + file.string());
    return ItemPicture{file, nullptr};
  }

  Result<void> set_answer(const Members& members) {
    MOESAIC_TRY(item_.reasoning, members.text("reasoning"));
    MOESAIC_TRY(auto answer, members.text("answer"));
    auto& last = item_.messages.back();
    if (answer) {
      if (last.role == "assistant")
        return fail(Errc::kInvalidArgument, "answer: the last message is an answer already");
      item_.answer = std::move(*answer);
      return {};
    }
    if (last.role != "assistant" || item_.messages.size() < 2)
      return fail(Errc::kInvalidArgument,
                  "answer is missing, and the last message is not the assistant's");
    for (const auto& part : last.parts) item_.answer += part.text;
    if (last.reasoning) item_.reasoning = std::move(last.reasoning);
    item_.messages.pop_back();
    return {};
  }

  Result<void> set_match(const Members& members) {
    MOESAIC_TRY(const auto match, members.text("match"));
    if (match.value_or("exact") == "exact") {
      if (members.find("contains") != nullptr)
        return fail(Errc::kInvalidArgument, "contains: match is not \"contains\"");
      return {};
    }
    if (*match != "contains")
      return fail(Errc::kUnsupported, "match: \"" + *match + "\", expected exact or contains");
    item_.match = ChatItem::Match::kContains;
    MOESAIC_TRY(item_.contains, members.texts("contains"));
    return {};
  }

  std::filesystem::path folder_;
  ChatItem item_;
};

}  // namespace

Result<std::vector<ChatItem>> read_chat_items(const std::filesystem::path& path,
                                              std::size_t limit) {
  std::error_code code;
  if (!std::filesystem::is_regular_file(path, code))
    return fail(Errc::kNotFound, path.string() + ": no such file");
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(Errc::kIo, path.string() + ": cannot be read");
  LineReader reader(path.parent_path());
  std::vector<ChatItem> items;
  std::string line;
  for (std::size_t number = 1; (limit == 0 || items.size() < limit) && std::getline(file, line);
       ++number) {
    const auto where = path.string() + ":" + std::to_string(number);
    if (line.size() > kMaxLine)
      return fail(Errc::kTooLarge, where + ": " + std::to_string(line.size()) + " bytes, at most " +
                                       std::to_string(kMaxLine));
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    auto item = reader.read(line);
    if (!item) return fail(where, item.error());
    item->where = where;
    if (item->id.empty()) item->id = std::to_string(number);
    items.push_back(std::move(*item));
  }
  if (file.bad()) return fail(Errc::kIo, path.string() + ": cannot be read");
  if (items.empty()) return fail(Errc::kInvalidArgument, path.string() + ": no items");
  return items;
}

}  // namespace moesaic
