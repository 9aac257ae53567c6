#pragma once

#include <array>
#include <bit>
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
    const auto trace = std::bit_cast<std::array<std::uint64_t, 2>>(trace_id);
    return (trace[0] | trace[1]) != 0 && std::bit_cast<std::uint64_t>(span_id) != 0;
  }
  bool operator==(const TraceContext&) const = default;
};

}  // namespace moesaic
