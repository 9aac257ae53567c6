#include "common/api/chat_request.hpp"

#include <array>
#include <boost/json/array.hpp>
#include <chrono>
#include <optional>
#include <utility>

#include "common/api/data_url.hpp"
#include "common/api/json_reader.hpp"
#include "common/api/options_parser.hpp"
#include "common/metrics/metrics.hpp"

namespace moesaic {
namespace {

namespace json = boost::json;
using namespace api_detail;

constexpr double kMaxFps = 1000;

tl::unexpected<ApiError> missing(const std::string& path) {
  return api_fail(ApiCode::kMissingRequiredParameter, path + " is required and must not be empty",
                  path);
}

/// Reads `messages` into a request, counting visuals as it goes.
class MessageParser {
 public:
  MessageParser(const RequestLimits& limits, ChatRequest& request)
      : limits_(limits), request_(request) {}

  ApiResult<void> parse(const json::value& value, const std::string& path) {
    MOESAIC_TRY(auto reader, ObjectReader::of(value, path));
    MOESAIC_TRY(const auto role, reader.string("role"));
    if (!role || role->empty()) return missing(reader.path("role"));
    RequestMessage message;
    MOESAIC_TRY(message.role, known_role(*role, reader.path("role")));
    MOESAIC_CHECK(parse_reasoning(reader, message));
    MOESAIC_CHECK(refuse_calls(reader));
    const auto* content = reader.find("content");
    if (content) {
      MOESAIC_CHECK(parse_content(*content, reader.path("content"), message));
    } else if (message.role != "assistant" || !message.reasoning) {
      return missing(reader.path("content"));
    }
    reader.list_unread(request_.options.ignored);
    request_.messages.push_back(std::move(message));
    return {};
  }

 private:
  static ApiResult<std::string> known_role(std::string_view role, const std::string& path) {
    if (role == "developer") return std::string("system");
    if (role == "system" || role == "user" || role == "assistant") return std::string(role);
    if (role == "tool" || role == "function") {
      return api_fail(ApiCode::kUnsupportedParameter, path + ": tool results are not built yet",
                      path);
    }
    return api_fail(ApiCode::kInvalidValue,
                    path + " must be one of system, developer, user, assistant", path);
  }

  static ApiResult<void> parse_reasoning(ObjectReader& reader, RequestMessage& message) {
    MOESAIC_TRY(const auto first, reader.string("reasoning_content"));
    MOESAIC_TRY(const auto second, reader.string("reasoning"));
    if (first && second && *first != *second) {
      const auto path = reader.path("reasoning");
      return api_fail(ApiCode::kAmbiguousParameter, path + " differs from reasoning_content", path);
    }
    const auto text = first ? first : second;
    if (!text) return {};
    if (message.role == "assistant") {
      message.reasoning = std::string(*text);
      return {};
    }
    const auto path = reader.path(first ? "reasoning_content" : "reasoning");
    return api_fail(ApiCode::kInvalidValue, path + " belongs to assistant messages only", path);
  }

  static ApiResult<void> refuse_calls(ObjectReader& reader) {
    for (const char* key : {"tool_calls", "function_call", "audio"}) {
      const auto* value = reader.find(key);
      if (!value || (value->is_array() && value->get_array().empty())) continue;
      const auto path = reader.path(key);
      return api_fail(ApiCode::kUnsupportedParameter, path + " is not built yet", path);
    }
    return {};
  }

  ApiResult<void> parse_content(const json::value& content, const std::string& path,
                                RequestMessage& message) {
    if (content.is_string()) {
      MOESAIC_TRY(const auto text, to_string(content, path));
      message.parts.push_back({std::string(text), std::nullopt});
      return {};
    }
    if (!content.is_array()) {
      return api_fail(ApiCode::kInvalidType, path + " must be a string or an array of parts", path);
    }
    const auto& parts = content.get_array();
    if (parts.empty()) return missing(path);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      MOESAIC_CHECK(parse_part(parts[i], at(path, i), message));
    }
    return {};
  }

  ApiResult<void> parse_part(const json::value& value, const std::string& path,
                             RequestMessage& message) {
    MOESAIC_TRY(auto reader, ObjectReader::of(value, path));
    MOESAIC_TRY(const auto type, reader.string("type"));
    if (!type || type->empty()) return missing(reader.path("type"));
    const auto type_path = reader.path("type");
    if (*type == "text") {
      MOESAIC_TRY(const auto text, reader.string("text"));
      if (!text) return missing(reader.path("text"));
      message.parts.push_back({std::string(*text), std::nullopt});
    } else if (*type == "image_url" || *type == "video") {
      if (message.role != "user") {
        return api_fail(ApiCode::kInvalidValue,
                        type_path + ": pictures and videos belong to user messages only",
                        type_path);
      }
      if (request_.visuals.size() >= limits_.max_images) {
        return api_fail(ApiCode::kTooManyImages,
                        "a request may have at most " + std::to_string(limits_.max_images) +
                            " pictures and videos",
                        "messages");
      }
      if (*type == "video") {
        MOESAIC_CHECK(parse_video(reader, message));
      } else {
        MOESAIC_CHECK(parse_image(reader, message));
      }
    } else if (*type == "video_url" || *type == "input_audio" || *type == "audio_url" ||
               *type == "file" || *type == "image_file") {
      return api_fail(ApiCode::kUnsupportedModality,
                      type_path + ": only text, image_url and video parts are served", type_path);
    } else {
      return api_fail(ApiCode::kInvalidValue, type_path + " must be one of text, image_url, video",
                      type_path);
    }
    reader.list_unread(request_.options.ignored);
    return {};
  }

  ApiResult<void> parse_image(ObjectReader& part, RequestMessage& message) {
    const auto* value = part.find("image_url");
    if (!value) return missing(part.path("image_url"));
    MOESAIC_TRY(auto reader, ObjectReader::of(*value, part.path("image_url")));
    MOESAIC_TRY(const auto url, reader.string("url"));
    if (!url || url->empty()) return missing(reader.path("url"));
    RequestVisual visual;
    MOESAIC_CHECK(add_frame(visual, *url, reader.path("url")));
    reader.list_unread(request_.options.ignored);
    place(std::move(visual), message);
    return {};
  }

  ApiResult<void> parse_video(ObjectReader& part, RequestMessage& message) {
    const auto path = part.path("video");
    const auto* value = part.find("video");
    if (!value) return missing(path);
    MOESAIC_TRY(const auto* const frames, to_array(*value, path));
    if (frames->empty()) return missing(path);
    if (frames->size() > limits_.max_frames) {
      return api_fail(ApiCode::kTooManyFrames,
                      path + " has " + std::to_string(frames->size()) + " frames, at most " +
                          std::to_string(limits_.max_frames) + " allowed",
                      "messages");
    }
    MOESAIC_TRY(const auto fps, part.number("fps", 0, kMaxFps));
    if (!fps) return missing(part.path("fps"));
    if (*fps == 0) {
      return api_fail(ApiCode::kInvalidValue, part.path("fps") + " must be above 0",
                      part.path("fps"));
    }
    RequestVisual visual;
    visual.video = true;
    visual.fps = *fps;
    for (std::size_t i = 0; i < frames->size(); ++i) {
      MOESAIC_TRY(const auto url, to_string((*frames)[i], at(path, i)));
      MOESAIC_CHECK(add_frame(visual, url, at(path, i)));
    }
    place(std::move(visual), message);
    return {};
  }

  void place(RequestVisual visual, RequestMessage& message) {
    message.parts.push_back({{}, request_.visuals.size()});
    request_.visuals.push_back(std::move(visual));
  }

  ApiResult<void> add_frame(RequestVisual& visual, std::string_view url, const std::string& path) {
    static const auto fetch = metrics::histogram("moesaic_vision_fetch_seconds");
    const auto begun = std::chrono::steady_clock::now();
    auto bytes = decode_data_url(url, limits_.max_image_bytes);
    if (!bytes) {
      switch (bytes.error().code) {
        case Errc::kTooLarge:
          return api_fail(ApiCode::kImageTooLarge, path + ": " + bytes.error().what, path);
        case Errc::kUnsupported:
          return api_fail(ApiCode::kInvalidImageUrl,
                          path + ": only data: URLs in base64 can be read here", path);
        default:
          return api_fail(ApiCode::kInvalidImage, path + ": not valid base64", path);
      }
    }
    metrics::Histogram(fetch).observe(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
    visual.frames.push_back(std::make_shared<const std::string>(std::move(*bytes)));
    visual.paths.push_back(path);
    return {};
  }

  const RequestLimits& limits_;
  ChatRequest& request_;
};

/// All spellings of the thinking switch must agree.
ApiResult<bool> parse_thinking(ObjectReader& body, std::vector<std::string>& ignored) {
  std::optional<bool> wanted;
  std::optional<std::string> contradiction;
  const auto note = [&](std::optional<bool> value, const std::string& path) {
    if (!value) return;
    if (wanted && *wanted != *value) contradiction = path;
    wanted = value;
  };
  MOESAIC_TRY(const auto direct, body.boolean("enable_thinking"));
  note(direct, "enable_thinking");
  if (const auto* kwargs = body.find("chat_template_kwargs")) {
    MOESAIC_TRY(auto reader, ObjectReader::of(*kwargs, "chat_template_kwargs"));
    MOESAIC_TRY(const auto nested, reader.boolean("enable_thinking"));
    note(nested, reader.path("enable_thinking"));
    reader.list_unread(ignored);
  }
  MOESAIC_TRY(const auto effort, body.string("reasoning_effort"));
  if (effort) {
    const bool on =
        *effort == "minimal" || *effort == "low" || *effort == "medium" || *effort == "high";
    if (!on && *effort != "none") {
      return api_fail(ApiCode::kInvalidValue,
                      "reasoning_effort must be one of none, minimal, low, medium, high",
                      "reasoning_effort");
    }
    note(on, "reasoning_effort");
  }
  if (contradiction) {
    return api_fail(ApiCode::kAmbiguousParameter,
                    "the ways to switch thinking on or off contradict each other", *contradiction);
  }
  return wanted.value_or(false);
}

}  // namespace

ApiResult<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits) {
  MOESAIC_TRY(const auto document, parse_body(body));
  MOESAIC_TRY(auto reader, ObjectReader::of(document, ""));
  ChatRequest request;
  MOESAIC_TRY(request.options, parse_options(reader, Endpoint::kChat, limits));
  MOESAIC_TRY(request.enable_thinking, parse_thinking(reader, request.options.ignored));

  const auto* messages = reader.find("messages");
  if (!messages) return missing("messages");
  MOESAIC_TRY(const auto* const list, to_array(*messages, "messages"));
  if (list->empty()) return missing("messages");
  MessageParser parser(limits, request);
  for (std::size_t i = 0; i < list->size(); ++i) {
    MOESAIC_CHECK(parser.parse((*list)[i], at("messages", i)));
  }
  reader.list_unread(request.options.ignored);
  return request;
}

}  // namespace moesaic
