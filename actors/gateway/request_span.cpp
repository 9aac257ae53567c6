#include "actors/gateway/request_span.hpp"

#include <vector>

#include "common/trace/traceparent.hpp"

namespace moesaic {
namespace {

constexpr std::int64_t kOk = 200;

}  // namespace

Span request_span(const Tracer& tracer, const HttpRequest& request, bool chat,
                  const std::string& model) {
  TraceContext incoming;
  if (const auto header = request.headers.find("traceparent")) {
    incoming = parse_traceparent(*header).value_or(TraceContext{});
  }
  auto span = tracer.start_root("request", SpanKind::kServer, incoming);
  if (!span.recording()) return span;
  span.set("http.request.method", request.method);
  span.set("http.route", request.path);
  span.set("gen_ai.operation.name", std::string(chat ? "chat" : "text_completion"));
  span.set("gen_ai.request.model", model);
  span.set("moesaic.request.id", request.request_id);
  return span;
}

void set_failed(Span& span, ApiCode code, bool streaming) {
  const auto& kind = kind_of(code);
  span.set("http.response.status_code", streaming ? kOk : std::int64_t{kind.status});
  span.fail(kind.text);
}

void set_finished(Span& span, std::string_view reason, const Usage& usage) {
  if (!span.recording()) return;
  span.set("http.response.status_code", kOk);
  span.set("gen_ai.usage.input_tokens", std::int64_t{usage.prompt_tokens});
  span.set("gen_ai.usage.output_tokens", std::int64_t{usage.completion_tokens});
  span.set("gen_ai.response.finish_reasons", std::vector<std::string>{std::string(reason)});
}

}  // namespace moesaic
