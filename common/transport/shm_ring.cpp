#include "common/transport/shm_ring.hpp"

#include <cassert>
#include <cstring>
#include <string>

namespace moesaic::transport {
namespace {

struct RecordHeader {
  std::uint32_t bytes;
  std::uint32_t total;  // 0: nothing here, go on at the ring's beginning
};
constexpr std::size_t kHeader = sizeof(RecordHeader);
static_assert(kHeader == 8);

// An empty ring starts over from here on: what is used stays small enough for a cache.
constexpr std::size_t kRewindFrom = std::size_t{32} << 10;

constexpr std::size_t padded(std::size_t bytes) { return (bytes + 7) / 8 * 8; }

}  // namespace

bool RingWriter::fits(std::size_t needed) {
  const auto used = tail_ - head_seen_;
  if (needed <= memory_.capacity - used) return true;
  const auto head = memory_.control->head.load();
  // A peer that writes nonsense here only makes its own ring look full.
  if (tail_ - head <= memory_.capacity) head_seen_ = head;
  return needed <= memory_.capacity - (tail_ - head_seen_);
}

void RingWriter::rewind(std::size_t needed) {
  const auto offset = tail_ % memory_.capacity;
  if (offset < kRewindFrom || needed > offset || memory_.control->head.load() != tail_) return;
  const RecordHeader skip{0, 0};
  std::memcpy(memory_.data + offset, &skip, kHeader);
  head_seen_ = tail_;
  tail_ += memory_.capacity - offset;  // published with the record that follows
}

std::span<std::byte> RingWriter::reserve(std::size_t bytes) {
  assert(bytes <= max_bytes());
  const auto needed = kHeader + padded(bytes);
  rewind(needed);
  if (!fits(needed)) return {};
  return {memory_.data + tail_ % memory_.capacity + kHeader, bytes};
}

void RingWriter::commit(std::size_t bytes, std::size_t total) {
  const RecordHeader header{static_cast<std::uint32_t>(bytes), static_cast<std::uint32_t>(total)};
  std::memcpy(memory_.data + tail_ % memory_.capacity, &header, kHeader);
  tail_ += kHeader + padded(bytes);
  memory_.control->tail.store(tail_);
}

bool RingWriter::wait_for(std::size_t bytes) {
  // Sequentially consistent against RingReader::release: one of the two sees the other.
  memory_.control->writer_waits.store(1);
  head_seen_ = tail_ - memory_.capacity;  // look again
  if (!fits(kHeader + padded(bytes))) return true;
  memory_.control->writer_waits.store(0);
  return false;
}

Result<std::optional<RingRecord>> RingReader::next() {
  const auto broken = [this](const std::string& what) {
    return fail(Errc::kCorrupt, "shared ring: " + what + " at position " + std::to_string(head_));
  };
  for (;;) {
    const auto tail = memory_.control->tail.load();
    if (tail == head_) return std::nullopt;
    const auto there = tail - head_;
    if (there > memory_.capacity || there < kHeader)
      return broken(std::to_string(there) + " bytes in a ring of " +
                    std::to_string(memory_.capacity));
    const auto offset = head_ % memory_.capacity;
    RecordHeader header;
    std::memcpy(&header, memory_.data + offset, kHeader);
    if (header.total == 0) {
      const auto skipped = memory_.capacity - offset;
      if (skipped > there || offset == 0) return broken("a jump past the end");
      head_ += skipped;
      continue;
    }
    const std::size_t bytes = header.bytes;
    if (bytes == 0 || bytes > header.total || kHeader + padded(bytes) > there)
      return broken("a record of " + std::to_string(bytes) + " bytes");
    taken_ = kHeader + padded(bytes);
    return RingRecord{{memory_.data + offset + kHeader, bytes}, header.total};
  }
}

bool RingReader::release() {
  head_ += taken_;
  memory_.control->head.store(head_);
  return memory_.control->writer_waits.load() != 0 &&
         memory_.control->writer_waits.exchange(0) != 0;
}

}  // namespace moesaic::transport
