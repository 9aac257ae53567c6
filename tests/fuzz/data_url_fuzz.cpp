// Input: a URL. What decodes is as long as its text says and within the limit; the same bytes
// behind the prefix decode, or fail, the same way.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "common/api/data_url.hpp"
#include "common/base/base64.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kLimit = 256;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto bytes = moesaic::decode_data_url(text, kLimit)) {
    const auto digits = text.size() - text.find(',') - 1;
    if (bytes->size() > kLimit || digits % 4 != 0 || (bytes->size() + 2) / 3 != digits / 4)
      std::abort();
  }
  const auto plain = moesaic::decode_base64(text);
  const auto url = moesaic::decode_data_url("data:image/png;base64," + std::string(text), size);
  if (plain.has_value() != url.has_value() || (plain && *plain != *url)) std::abort();
  return 0;
}
