#include "actors/gateway/request_flow.hpp"

#include <utility>

#include "actors/gateway/request_span.hpp"

namespace moesaic {
namespace {

// A stream begins with the first token, so that earlier failures have their own status; a client
// that waits longer gets the beginning and pings.
constexpr std::chrono::milliseconds kSilence{10'000};

std::string_view reason_text(FinishReason reason) {
  return reason == FinishReason::kLength ? "length" : "stop";
}

}  // namespace

RequestFlow::RequestFlow(Parts parts)
    : parts_(std::move(parts)), ticket_(std::move(parts_.ticket)) {}

void RequestFlow::refuse(const ApiError& error) {
  if (closed_) return;
  metrics_.failed(kind_of(error.code).text, now());
  set_failed(parts_.span, error.code, streaming_);
  if (streaming_) {
    parts_.responder->write(sse_event(error_json(error)) + std::string(kSseDone));
    parts_.responder->end();
  } else {
    parts_.responder->send(error_answer(error));
  }
  close();
}

bool RequestFlow::begin(AnswerPlan plan) {
  if (closed_) return false;
  plan_ = std::move(plan);
  metrics_.admitted(plan_.prompt_usage.prompt_tokens);
  parts_.span.set("gen_ai.response.id", plan_.head.id);
  builder_.emplace(parts_.tokenizer, plan_.thinking, plan_.stops);
  if (plan_.stream) {
    parts_.responder->post(
        [weak = weak_from_this()] {
          if (const auto self = weak.lock()) self->begin_stream();
        },
        kSilence);
  }
  return true;
}

void RequestFlow::on_event(const TokenEvent& event) {
  if (event.finished) metrics_.released(now());
  if (closed_) return;
  metrics_.tokens(event.tokens.size(), now());
  if (event.finished == FinishReason::kError || event.finished == FinishReason::kCancelled) {
    refuse(parts_.to_api_error(
        event.error.value_or(Error{Errc::kCancelled, "the engine cancelled the request"})));
    return;
  }
  auto delta = builder_->push(event.tokens);
  if (event.finished) {
    const auto rest = builder_->finish();
    delta.reasoning += rest.reasoning;
    delta.content += rest.content;
    finish(builder_->stopped() ? "stop" : reason_text(*event.finished), delta);
  } else if (builder_->stopped()) {
    parts_.cancel();
    finish("stop", delta);
  } else {
    emit(delta);
  }
}

void RequestFlow::client_gone() {
  if (closed_) return;
  metrics_.cancelled(now());
  parts_.span.fail("client_gone");
  if (builder_) parts_.cancel();
  close();
}

void RequestFlow::begin_stream() {
  if (closed_ || streaming_) return;
  streaming_ = true;
  auto fields = headers("text/event-stream");
  fields.add("Cache-Control", "no-cache");
  parts_.responder->begin_stream({std::move(fields), std::string(kSsePing), kSilence});
  if (plan_.chat) {
    parts_.responder->write(sse_event(chat_first_chunk(plan_.head, plan_.thinking, chunk_usage())));
  }
}

void RequestFlow::emit(const AnswerBuilder::Delta& delta) {
  if (!plan_.stream) {
    content_ += delta.content;
    reasoning_ += delta.reasoning;
    return;
  }
  begin_stream();
  std::string events;
  if (!plan_.chat) {
    if (!delta.content.empty()) {
      events = sse_event(text_chunk(plan_.head, delta.content, "", chunk_usage()));
    }
  } else {
    if (!delta.reasoning.empty()) {
      events += sse_event(chat_chunk(plan_.head, {std::nullopt, delta.reasoning}, chunk_usage()));
    }
    if (!delta.content.empty()) {
      events += sse_event(chat_chunk(plan_.head, {delta.content, std::nullopt}, chunk_usage()));
    }
  }
  parts_.responder->write(std::move(events));
}

void RequestFlow::finish(std::string_view reason, const AnswerBuilder::Delta& delta) {
  emit(delta);
  metrics_.finished(reason, now());
  set_finished(parts_.span, reason, usage());
  auto& responder = *parts_.responder;
  if (plan_.stream) {
    auto events = sse_event(plan_.chat ? chat_last_chunk(plan_.head, reason, chunk_usage())
                                       : text_chunk(plan_.head, "", reason, chunk_usage()));
    if (plan_.include_usage) {
      events += sse_event(plan_.chat ? chat_usage_chunk(plan_.head, usage())
                                     : text_usage_chunk(plan_.head, usage()));
    }
    responder.write(events + std::string(kSseDone));
    responder.end();
  } else if (plan_.chat) {
    ChatContent content;
    if (builder_->content_started()) content.content = std::move(content_);
    if (plan_.thinking) content.reasoning = std::move(reasoning_);
    responder.send(
        {200, headers("application/json"), chat_completion(plan_.head, content, reason, usage())});
  } else {
    responder.send(
        {200, headers("application/json"), text_completion(plan_.head, content_, reason, usage())});
  }
  close();
}

void RequestFlow::close() {
  closed_ = true;
  ticket_.reset();
  parts_.span.end();
}

Usage RequestFlow::usage() const {
  auto usage = plan_.prompt_usage;
  usage.completion_tokens = builder_->completion_tokens();
  usage.reasoning_tokens = builder_->reasoning_tokens();
  return usage;
}

ChunkUsage RequestFlow::chunk_usage() const {
  ChunkUsage chunk{plan_.include_usage, {}};
  if (plan_.continuous_usage) chunk.value = usage();
  return chunk;
}

HttpHeaders RequestFlow::headers(std::string_view content_type) const {
  HttpHeaders headers;
  headers.add("Content-Type", content_type);
  if (!plan_.ignored_header.empty()) headers.add("X-Ignored-Parameters", plan_.ignored_header);
  return headers;
}

}  // namespace moesaic
