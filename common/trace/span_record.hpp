#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/base/trace_context.hpp"

namespace moesaic {

/// Values as OTLP counts them.
enum class SpanKind : std::uint8_t { kInternal = 1, kServer = 2, kClient = 3 };

/// Never text of a prompt or an answer.
using SpanValue = std::variant<bool, std::int64_t, double, std::string, std::vector<std::string>>;

/// One finished span, on its way to a collector.
struct SpanRecord {
  TraceContext context;                     ///< trace and the span's own id
  std::array<std::uint8_t, 8> parent_id{};  ///< zeros: a root
  std::string name;
  SpanKind kind = SpanKind::kInternal;
  std::int64_t start_unix_ns = 0;
  std::int64_t end_unix_ns = 0;
  std::vector<std::pair<std::string, SpanValue>> attributes;
  bool failed = false;
  std::string error;  ///< of a failed one, short
};

}  // namespace moesaic
