#include "common/api/data_url.hpp"

#include "common/base/base64.hpp"

namespace moesaic {
namespace {

bool has_prefix_without_case(std::string_view text, std::string_view lower) {
  if (text.size() < lower.size()) return false;
  for (std::size_t i = 0; i < lower.size(); ++i) {
    const char c = text[i] >= 'A' && text[i] <= 'Z' ? static_cast<char>(text[i] | 0x20) : text[i];
    if (c != lower[i]) return false;
  }
  return true;
}

}  // namespace

Result<std::string> decode_data_url(std::string_view url, std::size_t max_bytes) {
  if (!has_prefix_without_case(url, "data:")) return fail(Errc::kUnsupported, "not a data: URL");
  const auto comma = url.find(',');
  if (comma == std::string_view::npos) return fail(Errc::kUnsupported, "data: URL without a comma");
  const auto head = url.substr(0, comma);
  const auto semicolon = head.rfind(';');
  if (semicolon == std::string_view::npos || head.size() - semicolon != 7 ||
      !has_prefix_without_case(head.substr(semicolon), ";base64")) {
    return fail(Errc::kUnsupported, "data: URL that is not base64");
  }
  const auto data = url.substr(comma + 1);
  if (data.size() / 4 * 3 > max_bytes + 2) {
    return fail(Errc::kTooLarge, std::to_string(data.size() / 4 * 3) + " bytes, at most " +
                                     std::to_string(max_bytes) + " allowed");
  }
  MOESAIC_TRY(auto bytes, decode_base64(data));
  if (bytes.size() > max_bytes) {
    return fail(Errc::kTooLarge, std::to_string(bytes.size()) + " bytes, at most " +
                                     std::to_string(max_bytes) + " allowed");
  }
  return bytes;
}

}  // namespace moesaic
