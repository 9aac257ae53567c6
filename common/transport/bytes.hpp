#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "common/base/result.hpp"
#include "common/transport/frame.hpp"

namespace moesaic::transport {

/// Control messages in a fixed binary form: each message type has one function
///   template <class Codec> void fields(Codec& codec, Message& message) { codec(message.a); ... }
/// which both directions use. Little-endian; integers as they are; text and lists with a u32 count
/// that is checked against the bytes left before anything is allocated.
class ByteWriter {
 public:
  template <class T>
  void operator()(const T& value) {
    if constexpr (std::is_enum_v<T>) {
      (*this)(static_cast<std::underlying_type_t<T>>(value));
    } else if constexpr (std::is_same_v<T, bool>) {
      (*this)(static_cast<std::uint8_t>(value));
    } else if constexpr (std::is_arithmetic_v<T>) {
      const auto* from = reinterpret_cast<const std::byte*>(&value);
      bytes_.insert(bytes_.end(), from, from + sizeof value);
    } else {
      fields(*this, const_cast<T&>(value));
    }
  }
  void operator()(const std::string& text) {
    (*this)(static_cast<std::uint32_t>(text.size()));
    const auto* from = reinterpret_cast<const std::byte*>(text.data());
    bytes_.insert(bytes_.end(), from, from + text.size());
  }
  template <class T>
  void operator()(const std::vector<T>& list) {
    (*this)(static_cast<std::uint32_t>(list.size()));
    for (const auto& item : list) (*this)(item);
  }
  template <class V>
  void operator()(const std::map<std::string, V>& map) {
    (*this)(static_cast<std::uint32_t>(map.size()));
    for (const auto& [key, value] : map) {
      (*this)(key);
      (*this)(value);
    }
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  void operator()(T& value) {
    if constexpr (std::is_enum_v<T>) {
      std::underlying_type_t<T> number{};
      (*this)(number);
      value = static_cast<T>(number);
    } else if constexpr (std::is_same_v<T, bool>) {
      std::uint8_t number = 0;
      (*this)(number);
      value = number != 0;
    } else if constexpr (std::is_arithmetic_v<T>) {
      if (!take(sizeof value)) return;
      std::memcpy(&value, bytes_.data() + at_ - sizeof value, sizeof value);
    } else {
      fields(*this, value);
    }
  }
  void operator()(std::string& text) {
    const auto size = count();
    if (!take(size)) return;
    text.assign(reinterpret_cast<const char*>(bytes_.data() + at_ - size), size);
  }
  template <class T>
  void operator()(std::vector<T>& list) {
    const auto size = count();
    list.clear();
    for (std::uint32_t i = 0; i < size && ok_; ++i) (*this)(list.emplace_back());
  }
  template <class V>
  void operator()(std::map<std::string, V>& map) {
    const auto size = count();
    map.clear();
    for (std::uint32_t i = 0; i < size && ok_; ++i) {
      std::string key;
      (*this)(key);
      (*this)(map[key]);
    }
  }
  /// All fields were there, and nothing was left.
  bool complete() const { return ok_ && at_ == bytes_.size(); }

 private:
  std::uint32_t count() {
    std::uint32_t size = 0;
    (*this)(size);
    if (size > bytes_.size() - at_) ok_ = false;  // an item takes at least a byte
    return ok_ ? size : 0;
  }
  bool take(std::size_t size) {
    if (!ok_ || size > bytes_.size() - at_) return ok_ = false;
    at_ += size;
    return true;
  }

  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

/// A control message as a frame of that type.
template <class Message>
Frame make_message(FrameType type, const Message& message) {
  ByteWriter writer;
  writer(message);
  Frame frame;
  frame.type = type;
  frame.tensors.emplace_back(
      DType::kU8, std::vector<std::int64_t>{static_cast<std::int64_t>(writer.bytes().size())});
  std::memcpy(frame.tensors[0].bytes.data(), writer.bytes().data(), writer.bytes().size());
  return frame;
}

/// @errors kCorrupt: not that message, bytes missing or left over
template <class Message>
[[nodiscard]] Result<Message> read_message(const Frame& frame) {
  if (frame.tensors.empty() || frame.tensors[0].dtype != DType::kU8)
    return fail(Errc::kCorrupt, "frame of type " +
                                    std::to_string(static_cast<unsigned>(frame.type)) +
                                    ": no message in it");
  ByteReader reader({frame.tensors[0].bytes.data(), frame.tensors[0].elements()});
  Message message;
  reader(message);
  if (!reader.complete())
    return fail(Errc::kCorrupt, "frame of type " +
                                    std::to_string(static_cast<unsigned>(frame.type)) +
                                    ": fields missing or left over");
  return message;
}

}  // namespace moesaic::transport
