#include "common/engine/stage_spans.hpp"

namespace moesaic {

void trace_stages(const Tracer& tracer, const Sequence& sequence, std::string_view failure) {
  const auto& request = *sequence.request;
  if (!tracer.on() || !request.trace.sampled) return;
  const auto now = Sequence::Clock::now();
  const auto stage = [&](std::string_view name, Sequence::Clock::time_point from) {
    return tracer.start(name, SpanKind::kInternal, request.trace, from);
  };
  const auto leave = [&](Span span, bool last, Sequence::Clock::time_point at) {
    if (last && !failure.empty()) span.fail(failure);
    span.end(at);
  };
  leave(stage("queue", sequence.arrived), !sequence.begun, sequence.begun.value_or(now));
  if (!sequence.begun) return;
  auto prefill = stage("prefill", *sequence.begun);
  prefill.set("gen_ai.usage.input_tokens", static_cast<std::int64_t>(request.prompt.size()));
  if (!request.generated.empty()) {
    prefill.set("moesaic.replayed_tokens", static_cast<std::int64_t>(request.generated.size()));
  }
  leave(std::move(prefill), !sequence.first_token, sequence.first_token.value_or(now));
  if (!sequence.first_token) return;
  auto decode = stage("decode", *sequence.first_token);
  decode.set("gen_ai.usage.output_tokens", static_cast<std::int64_t>(sequence.generated()));
  leave(std::move(decode), true, now);
}

}  // namespace moesaic
