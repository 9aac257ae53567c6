#pragma once

#include <array>
#include <cstdint>

namespace moesaic {

/// Which trace and which span of it caused something: W3C trace context, as carried by the header
/// `traceparent` and by frames.
struct TraceContext {
  std::array<std::uint8_t, 16> trace_id{};
  std::array<std::uint8_t, 8> span_id{};  ///< of the parent
  bool sampled = false;                   ///< spans are to be recorded

  /// All zeros mean that there is no trace.
  bool valid() const {
    return trace_id != std::array<std::uint8_t, 16>{} && span_id != std::array<std::uint8_t, 8>{};
  }
  bool operator==(const TraceContext&) const = default;
};

}  // namespace moesaic
