#pragma once

#include <span>
#include <string>
#include <string_view>

#include "common/trace/span_record.hpp"

namespace moesaic {

/// Who the spans are of.
struct TraceResource {
  std::string service;
  std::string instance;
  std::string version;
};

/// The body of POST /v1/traces: ExportTraceServiceRequest in OTLP's JSON (ids in hexadecimal,
/// 64-bit numbers as strings, enumerations as numbers).
std::string otlp_json(const TraceResource& resource, std::span<const SpanRecord> spans);

}  // namespace moesaic
