#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string_view>

namespace moesaic {

/// What one request adds to moesaic_request_*: told of each stage, keeps the times between them.
/// Every request ends in exactly one of finished, rejected, cancelled. One thread at a time.
class RequestMetrics {
 public:
  using Clock = std::chrono::steady_clock;

  /// @param arrived when the request was complete
  explicit RequestMetrics(Clock::time_point arrived) : arrived_(arrived) {}

  /// The prompt goes to the engine.
  void admitted(std::size_t prompt_tokens);
  /// New tokens of the answer; the first ends the prefill.
  void tokens(std::size_t count, Clock::time_point now);
  /// @param reason stop or length
  void finished(std::string_view reason, Clock::time_point now);
  /// The client is told an error.
  /// @param code its `error.code`: counts as rejected before the first token, as finished after it
  void failed(std::string_view code, Clock::time_point now);
  /// The client has gone.
  void cancelled(Clock::time_point now);
  /// The engine's last word of a request that was cancelled before.
  void released(Clock::time_point now);

  /// A request that is refused before it has any state.
  static void rejected(std::string_view code);

 private:
  enum class Stage : unsigned char { kPrepare, kPrefill, kDecode };

  Clock::time_point arrived_;
  Clock::time_point last_token_{};
  std::optional<Clock::time_point> cancelled_;
  Stage stage_ = Stage::kPrepare;
};

}  // namespace moesaic
