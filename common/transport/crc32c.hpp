#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace moesaic::transport {

/// The versions behind `crc32c` of wire.hpp: one table of 256 words, a byte at a time (the
/// reference); the processor's instruction on three streams at once; carry-less multiplication of
/// 64 bytes at once. Same results.
std::uint32_t crc32c_table(std::span<const std::byte> bytes, std::uint32_t crc = 0);
/// @pre crc32c_has_instruction()
std::uint32_t crc32c_sse42(std::span<const std::byte> bytes, std::uint32_t crc = 0);
/// @pre crc32c_has_vpclmul()
std::uint32_t crc32c_vpclmul(std::span<const std::byte> bytes, std::uint32_t crc = 0);
bool crc32c_has_instruction();
bool crc32c_has_vpclmul();

}  // namespace moesaic::transport
