#pragma once

#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace moesaic {

/// Standard base64 (RFC 4648 section 4), padded.
std::string encode_base64(std::string_view bytes);

/// Bytes of standard base64, strictly: padded to a multiple of four, no white space, unused bits
/// zero.
/// @errors kInvalidArgument, with the byte offset
[[nodiscard]] Result<std::string> decode_base64(std::string_view text);

}  // namespace moesaic
