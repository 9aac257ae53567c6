#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/result.hpp"
#include "common/transport/frame.hpp"

namespace moesaic::transport {

/// Frames as bytes, little-endian: the envelope of 72 bytes, the trace context if there is one,
/// one descriptor of 32 bytes per tensor, then the tensors, each aligned to 64 from the start.
inline constexpr std::uint32_t kMagic = 0x4345534d;  // "MSEC"
inline constexpr std::uint16_t kWireVersion = 1;
inline constexpr std::size_t kEnvelopeBytes = 72;
inline constexpr std::size_t kMaxTensors = 16;

/// Bytes of the encoded frame.
std::size_t encoded_size(const Frame& frame);

/// Writes the frame to `out`, whose size is `encoded_size(frame)`.
void encode(const Frame& frame, std::span<std::byte> out);

/// Reads one frame; every field is checked against the bytes there are before anything is
/// allocated, and both checksums are verified. `bytes` needs no alignment and may change while it
/// is read only if it was checked to be private memory.
/// @errors kCorrupt: not a frame, truncated, checksum, sizes that disagree (the text has the
/// numbers); kUnsupported: a wire version that is neither ours nor the one before (both numbers)
[[nodiscard]] Result<Frame> decode(std::span<const std::byte> bytes);

/// CRC-32C (Castagnoli) of `bytes`, continued from `crc`.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc = 0);

}  // namespace moesaic::transport
