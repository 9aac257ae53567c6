#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/result.hpp"
#include "common/transport/frame.hpp"

namespace moesaic::transport {

/// Frames as bytes, little-endian: the envelope of 72 bytes, the trace context (32 bytes) if there
/// is one, one descriptor of 32 bytes per tensor, then the tensors, each aligned to 64 from the
/// start, zeros between them. Layer and modality stand in each descriptor: a frame without tensors
/// carries none. kHello, kWelcome and kFailure keep the envelope of version 1 for ever.
inline constexpr std::uint32_t kMagic = 0x4345534d;  // "MSEC"
inline constexpr std::uint16_t kWireVersion = 1;
inline constexpr std::uint16_t kOldestWireVersion = 1;  ///< the one before, when there is one
inline constexpr std::size_t kEnvelopeBytes = 72;
inline constexpr std::size_t kMaxTensors = 16;
inline constexpr std::size_t kMaxRank = 4;

/// Bytes of the encoded frame.
std::size_t encoded_size(const Frame& frame);

/// `encoded_size` of a frame that may not fit.
/// @errors kTooLarge: more bytes than `limit` or than the format can count (both numbers), too many
/// tensors or dimensions
[[nodiscard]] Result<std::size_t> checked_size(const Frame& frame, std::size_t limit);

/// Writes the frame to `out`, whose size is `encoded_size(frame)`.
/// @pre checked_size(frame) succeeds
void encode(const Frame& frame, std::span<std::byte> out);

/// Reads one frame; every field is checked against the bytes there are before anything is
/// allocated, and both checksums are verified. `bytes` needs no alignment. Each byte is read at
/// most once and checked in a private copy, so `bytes` may be memory that somebody else writes to.
/// @errors kCorrupt: not a frame, truncated, checksum, sizes that disagree (the text has the
/// numbers); kUnsupported: a wire version that is neither ours nor the one before (both numbers)
[[nodiscard]] Result<Frame> decode(std::span<const std::byte> bytes);

/// CRC-32C (Castagnoli) of `bytes`, continued from `crc`.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc = 0);

}  // namespace moesaic::transport
