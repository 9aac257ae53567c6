#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/gateway/admission.hpp"
#include "actors/gateway/request_metrics.hpp"
#include "common/api/api_error.hpp"
#include "common/api/responses.hpp"
#include "common/chat/answer_builder.hpp"
#include "common/engine/request.hpp"
#include "common/http/responder.hpp"
#include "common/tokenizer/tokenizer.hpp"
#include "common/trace/tracer.hpp"

namespace moesaic {

/// How one request wants to be answered.
struct AnswerPlan {
  bool chat = true;  ///< else a text completion
  AnswerHead head;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool thinking = false;
  std::vector<std::string> stops;
  std::string ignored_header;  ///< value of X-Ignored-Parameters; empty: none
  Usage prompt_usage;          ///< the prompt's share
};

/// One request from its arrival to its last byte: turns the engine's events into the client's
/// answer. Knows nothing of actors. Every member runs on the responder's executor.
class RequestFlow : public std::enable_shared_from_this<RequestFlow> {
 public:
  struct Parts {
    std::shared_ptr<Responder> responder;
    std::shared_ptr<const Tokenizer> tokenizer;
    Admission::Ticket ticket;
    /// Nobody wants the rest: the client has gone, or a stop string came. Called at most once, and
    /// only after `begin`.
    std::function<void()> cancel;
    /// Words an error of the engine.
    std::function<ApiError(const Error&)> to_api_error;
    Span span;  ///< of the whole request; ends with it
  };
  explicit RequestFlow(Parts parts);

  /// Ends the request without an answer of the engine.
  void refuse(const ApiError& error);
  /// The prompt is ready to be submitted. False if the client has gone meanwhile: submit nothing.
  [[nodiscard]] bool begin(AnswerPlan plan);
  void on_event(const TokenEvent& event);
  void client_gone();

  Responder& responder() { return *parts_.responder; }
  /// For what is done on behalf of the request.
  const TraceContext& trace() const { return parts_.span.context(); }

 private:
  void begin_stream();
  void emit(const AnswerBuilder::Delta& delta);
  void finish(std::string_view reason, const AnswerBuilder::Delta& delta);
  void close();
  static RequestMetrics::Clock::time_point now() { return RequestMetrics::Clock::now(); }
  Usage usage() const;
  ChunkUsage chunk_usage() const;
  HttpHeaders headers(std::string_view content_type) const;

  Parts parts_;
  RequestMetrics metrics_{RequestMetrics::Clock::now()};
  std::optional<Admission::Ticket> ticket_;
  AnswerPlan plan_;
  std::optional<AnswerBuilder> builder_;
  std::string content_;    ///< of an answer that is not streamed
  std::string reasoning_;  ///< the same
  bool streaming_ = false;
  bool closed_ = false;
};

}  // namespace moesaic
