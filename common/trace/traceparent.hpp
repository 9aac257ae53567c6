#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "common/base/trace_context.hpp"

namespace moesaic {

/// What the header `traceparent` says, strictly after W3C Trace Context: nothing for upper-case
/// digits, ids of zeros, version ff, or a version 00 that is longer. Of a later version the first
/// 55 characters are read.
std::optional<TraceContext> parse_traceparent(std::string_view text);

/// As a header of version 00. `context` is valid.
std::string format_traceparent(const TraceContext& context);

/// Lower-case hexadecimal.
std::string hex(std::span<const std::uint8_t> bytes);

}  // namespace moesaic
