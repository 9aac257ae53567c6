#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace moesaic {

/// Element types of tensors in files and memory (safetensors names in brackets).
enum class DType : std::uint8_t {
  kF32,   ///< [F32]
  kBf16,  ///< [BF16]
  kF16,   ///< [F16]
  kI32,   ///< [I32]
  kI64,   ///< [I64]
  kU8,    ///< [U8]
  kU16,   ///< [U16] bit patterns of bf16 in some Paddle exports
  kI8,    ///< [I8]
};

/// Bytes of one element.
constexpr std::size_t dtype_bytes(DType type) {
  switch (type) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBf16:
    case DType::kF16:
    case DType::kU16:
      return 2;
    case DType::kI64:
      return 8;
    case DType::kU8:
    case DType::kI8:
      return 1;
  }
  return 0;
}

/// The safetensors name, e.g. "BF16".
constexpr std::string_view dtype_name(DType type) {
  switch (type) {
    case DType::kF32:
      return "F32";
    case DType::kBf16:
      return "BF16";
    case DType::kF16:
      return "F16";
    case DType::kI32:
      return "I32";
    case DType::kI64:
      return "I64";
    case DType::kU8:
      return "U8";
    case DType::kU16:
      return "U16";
    case DType::kI8:
      return "I8";
  }
  return "?";
}

}  // namespace moesaic
