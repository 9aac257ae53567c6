#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "common/base/result.hpp"

namespace moesaic {

/// Bytes of a `data:<anything>;base64,<data>` URL. The media type is not looked at: who decodes
/// tells the format by the bytes.
/// @param max_bytes of the result
/// @errors kUnsupported (another scheme, or data that is not base64), kInvalidArgument (broken
/// base64), kTooLarge (decided before decoding)
[[nodiscard]] Result<std::string> decode_data_url(std::string_view url, std::size_t max_bytes);

}  // namespace moesaic
