#pragma once

#include <string>
#include <string_view>

#include "common/api/api_error.hpp"
#include "common/api/responses.hpp"
#include "common/http/message.hpp"
#include "common/trace/tracer.hpp"

namespace moesaic {

/// The root span of an API request; goes on with the trace of its header `traceparent`.
Span request_span(const Tracer& tracer, const HttpRequest& request, bool chat,
                  const std::string& model);
/// The client is told this error.
/// @param streaming inside a stream, whose status was 200
void set_failed(Span& span, ApiCode code, bool streaming = false);
/// The answer is complete.
/// @param reason stop or length
void set_finished(Span& span, std::string_view reason, const Usage& usage);

}  // namespace moesaic
