#include "services/all_in_one/eval/accuracy.hpp"

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "common/chat/answer_builder.hpp"
#include "common/engine/local_experts.hpp"
#include "common/engine/make_engine.hpp"

namespace moesaic {
namespace {

/// Python's str.strip() for ASCII.
std::string_view strip(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r\v\f";
  const auto first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

/// Collects the tokens of requests whose ids are 0, 1, ...
class Answers {
 public:
  explicit Answers(std::size_t count) : open_(count), ids_(count) {}

  void take(const TokenEvents& events) {
    const std::lock_guard lock(mutex_);
    for (const auto& event : events) {
      auto& ids = ids_[event.id];
      ids.insert(ids.end(), event.tokens.begin(), event.tokens.end());
      if (event.error && !error_) error_ = event.error;
      if (event.finished) --open_;
    }
    if (open_ == 0) done_.notify_all();
  }

  Result<std::vector<std::vector<std::int32_t>>> wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return open_ == 0; });
    if (error_) return tl::make_unexpected(*error_);
    return ids_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable done_;
  std::size_t open_;
  std::vector<std::vector<std::int32_t>> ids_;
  std::optional<Error> error_;
};

}  // namespace

bool is_right(const ChatItem& item, std::string_view content) {
  if (item.match == ChatItem::Match::kContains)
    return std::all_of(item.contains.begin(), item.contains.end(), [&](const auto& part) {
      return content.find(part) != std::string_view::npos;
    });
  return strip(content) == strip(item.answer);
}

Result<std::vector<std::string>> answer_items(const LoadedModel& model, const ItemEncoder& encoder,
                                              std::span<const EncodedItem> items,
                                              std::uint32_t max_tokens) {
  if (items.empty()) return std::vector<std::string>{};
  EngineSettings settings;
  settings.drawable_ids = static_cast<std::uint32_t>(encoder.drawable_ids());
  settings.limits.max_running = items.size();
  settings.limits.max_waiting = items.size();
  for (const auto& item : items)
    settings.max_context = std::max(settings.max_context, item.prompt.size() + max_tokens);
  settings.max_context = std::min<std::size_t>(settings.max_context, model.config.max_positions);
  Answers answers(items.size());
  MOESAIC_TRY(const auto engine,
              make_engine(model, settings,
                          std::make_unique<LocalExperts>(model.config, model.gates,
                                                         model.experts.front(), *model.pool),
                          [&](const TokenEvents& events) { answers.take(events); }));
  for (std::size_t i = 0; i < items.size(); ++i) {
    auto request = std::make_shared<GenerateRequest>();
    request->id = i;
    request->prompt = items[i].prompt;
    request->visuals = items[i].visuals;
    request->max_tokens = static_cast<std::uint32_t>(
        std::min<std::size_t>(max_tokens, settings.max_context - items[i].prompt.size()));
    request->stop_ids = encoder.stop_ids();
    request->sampling.temperature = 0;
    MOESAIC_CHECK(engine->submit(std::move(request)));
  }
  MOESAIC_TRY(const auto ids, answers.wait());
  std::vector<std::string> contents;
  for (std::size_t i = 0; i < items.size(); ++i) {
    AnswerBuilder builder(encoder.tokenizer(), items[i].thinking, {});
    auto content = builder.push(ids[i]).content;
    content += builder.finish().content;
    contents.push_back(std::move(content));
  }
  return contents;
}

}  // namespace moesaic
