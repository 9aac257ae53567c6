#include "common/transport/failure.hpp"

#include <cstring>

namespace moesaic::transport {

Frame make_failure(const Error& error, std::uint64_t sequence) {
  Frame frame;
  frame.type = FrameType::kFailure;
  frame.code = static_cast<std::uint8_t>(error.code);
  frame.sequence = sequence;
  frame.tensors.emplace_back(
      DType::kU8, std::vector<std::int64_t>{static_cast<std::int64_t>(error.what.size())});
  if (!error.what.empty())
    std::memcpy(frame.tensors[0].bytes.data(), error.what.data(), error.what.size());
  return frame;
}

Error read_failure(const Frame& frame) {
  std::string text;
  if (!frame.tensors.empty() && frame.tensors[0].dtype == DType::kU8) {
    const auto bytes = frame.tensors[0].as<char>();
    text.assign(bytes.data(), bytes.size());
  }
  const bool known = frame.code >= static_cast<std::uint8_t>(Errc::kInvalidArgument) &&
                     frame.code <= static_cast<std::uint8_t>(Errc::kExpertUnavailable);
  return {known ? static_cast<Errc>(frame.code) : Errc::kInternal, std::move(text)};
}

}  // namespace moesaic::transport
