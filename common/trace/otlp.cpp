#include "common/trace/otlp.hpp"

#include <boost/json.hpp>

#include "common/trace/traceparent.hpp"

namespace moesaic {
namespace {

namespace json = boost::json;

constexpr int kStatusError = 2;

json::object string_value(std::string_view text) {
  return {{"stringValue", json::string_view(text.data(), text.size())}};
}

struct ToJson {
  json::object operator()(bool value) const { return {{"boolValue", value}}; }
  json::object operator()(std::int64_t value) const {
    return {{"intValue", std::to_string(value)}};
  }
  json::object operator()(double value) const { return {{"doubleValue", value}}; }
  json::object operator()(const std::string& value) const { return string_value(value); }
  json::object operator()(const std::vector<std::string>& values) const {
    json::array array;
    for (const auto& value : values) array.push_back(string_value(value));
    return {{"arrayValue", json::object{{"values", std::move(array)}}}};
  }
};

json::object attribute(std::string_view key, const SpanValue& value) {
  return {{"key", json::string_view(key.data(), key.size())},
          {"value", std::visit(ToJson{}, value)}};
}

json::object span_json(const SpanRecord& span) {
  json::object out{{"traceId", hex(span.context.trace_id)},
                   {"spanId", hex(span.context.span_id)},
                   {"name", span.name},
                   {"kind", static_cast<int>(span.kind)},
                   {"startTimeUnixNano", std::to_string(span.start_unix_ns)},
                   {"endTimeUnixNano", std::to_string(span.end_unix_ns)}};
  if (span.parent_id != std::array<std::uint8_t, 8>{}) out["parentSpanId"] = hex(span.parent_id);
  json::array attributes;
  for (const auto& [key, value] : span.attributes) attributes.push_back(attribute(key, value));
  out["attributes"] = std::move(attributes);
  if (span.failed) out["status"] = json::object{{"code", kStatusError}, {"message", span.error}};
  return out;
}

}  // namespace

std::string otlp_json(const TraceResource& resource, std::span<const SpanRecord> spans) {
  json::array list;
  for (const auto& span : spans) list.push_back(span_json(span));
  json::object scope_spans{
      {"scope", json::object{{"name", "moesaic"}, {"version", resource.version}}},
      {"spans", std::move(list)}};
  json::array attributes{attribute("service.name", resource.service),
                         attribute("service.instance.id", resource.instance),
                         attribute("service.version", resource.version)};
  json::object resource_spans{{"resource", json::object{{"attributes", std::move(attributes)}}},
                              {"scopeSpans", json::array{std::move(scope_spans)}}};
  return json::serialize(json::object{{"resourceSpans", json::array{std::move(resource_spans)}}});
}

}  // namespace moesaic
