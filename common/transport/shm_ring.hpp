#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>

#include "common/base/result.hpp"

namespace moesaic::transport {

/// The shared words of a ring with one writer and one reader, on lines of their own. Positions
/// count bytes from the beginning of time.
struct RingControl {
  alignas(64) std::atomic<std::uint64_t> tail;          ///< of the writer
  alignas(64) std::atomic<std::uint64_t> head;          ///< of the reader
  alignas(64) std::atomic<std::uint32_t> writer_waits;  ///< ring its doorbell when there is room
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && sizeof(RingControl) == 192);

/// Ring memory: `capacity` bytes (a power of two, at least kMinRing) that are mapped twice in a
/// row, so that no record has a seam.
inline constexpr std::size_t kMinRing = std::size_t{64} << 10;
struct RingMemory {
  RingControl* control = nullptr;
  std::byte* data = nullptr;
  std::size_t capacity = 0;
};

/// A record: a piece of a frame of `total` bytes, most often all of it.
struct RingRecord {
  std::span<const std::byte> bytes;  ///< shared memory: read once, copy, then check
  std::size_t total = 0;
};

/// The writing end; one thread. What the peer writes to the control words is bounded here.
class RingWriter {
 public:
  explicit RingWriter(RingMemory memory) : memory_(memory) {}

  /// The largest record.
  std::size_t max_bytes() const { return memory_.capacity / 2; }
  /// Room for a record of that many bytes, to be filled and committed; empty: not now.
  std::span<std::byte> reserve(std::size_t bytes);
  /// Publishes what the last `reserve` gave.
  void commit(std::size_t bytes, std::size_t total);
  /// Asks to be told when there is room for `bytes`. @return false: there is already
  bool wait_for(std::size_t bytes);

 private:
  bool fits(std::size_t needed);
  void rewind(std::size_t needed);

  RingMemory memory_;
  std::uint64_t tail_ = 0;
  std::uint64_t head_seen_ = 0;
};

/// The reading end; one thread.
class RingReader {
 public:
  explicit RingReader(RingMemory memory) : memory_(memory) {}

  bool empty() const { return memory_.control->tail.load() == head_; }
  /// The next record, if there is one.
  /// @errors kCorrupt: the writer breaks the rules; nothing more can be read
  [[nodiscard]] Result<std::optional<RingRecord>> next();
  /// Gives the room of the last `next` back. @return the writer waits for it
  bool release();

 private:
  RingMemory memory_;
  std::uint64_t head_ = 0;
  std::uint64_t taken_ = 0;  // bytes of the record at hand, with its header
};

}  // namespace moesaic::transport
