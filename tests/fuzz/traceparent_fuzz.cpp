// Input: a header. What is accepted is valid, and as version 00 it is read back the same; the text
// of a version 00 comes back as it was, but for its unknown flags.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "common/trace/traceparent.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto context = moesaic::parse_traceparent(text);
  if (!context) return 0;
  const auto again = moesaic::format_traceparent(*context);
  if (!context->valid() || moesaic::parse_traceparent(again) != context) std::abort();
  if (again.substr(3, 50) != text.substr(3, 50)) std::abort();
  return 0;
}
