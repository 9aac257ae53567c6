#include "common/transport/shm_stream.hpp"

#include <algorithm>
#include <cstring>

#include "common/transport/wire.hpp"

namespace moesaic::transport {
namespace {

ShmStream::Read taken(Result<Frame>& decoded, Frame& frame) {
  if (!decoded) return ShmStream::Read::kMalformed;
  frame = std::move(*decoded);
  return ShmStream::Read::kFrame;
}

}  // namespace

ShmStream::ShmStream(std::shared_ptr<ShmConnection> memory, const CarrierLimits& limits)
    : memory_(std::move(memory)), limits_(limits) {}

Result<void> ShmStream::send(Frame frame) {
  MOESAIC_TRY(const auto bytes, checked_size(frame, limits_.max_frame_bytes));
  auto& writer = memory_->writer;
  if (waiting_.empty() && bytes <= writer.max_bytes()) {
    if (const auto room = writer.reserve(bytes); !room.empty()) {
      encode(frame, room);
      writer.commit(bytes, bytes);
      memory_->doorbell.ring();
      return {};
    }
  }
  if (waiting_.size() >= limits_.queue_frames)
    return fail(Errc::kOverloaded,
                "queue of " + std::to_string(limits_.queue_frames) + " frames is full");
  auto& waiting = waiting_.emplace_back(Waiting{.frame = std::move(frame), .bytes = bytes});
  if (bytes > writer.max_bytes()) {
    waiting.encoded = AlignedBuffer(bytes);
    encode(waiting.frame, {waiting.encoded.data(), bytes});
    waiting.frame = {};
  }
  flush();
  return {};
}

std::size_t ShmStream::next_record(const Waiting& waiting) const {
  // A quarter of the ring: the reader empties one while the next are written.
  return waiting.encoded.size() == 0
             ? waiting.bytes
             : std::min(waiting.bytes - waiting.written, memory_->writer.max_bytes() / 2);
}

bool ShmStream::flush() {
  auto& writer = memory_->writer;
  bool any = false;
  while (!waiting_.empty()) {
    auto& first = waiting_.front();
    const auto bytes = next_record(first);
    const auto room = writer.reserve(bytes);
    if (room.empty()) {
      if (writer.wait_for(bytes)) break;
      continue;
    }
    if (first.encoded.size() == 0) {
      encode(first.frame, room);
    } else {
      std::memcpy(room.data(), first.encoded.data() + first.written, bytes);
    }
    writer.commit(bytes, first.bytes);
    first.written += bytes;
    if (first.written == first.bytes) waiting_.pop_front();
    memory_->doorbell.ring();
    any = true;
  }
  return any;
}

void ShmStream::release() {
  if (memory_->reader.release()) memory_->doorbell.ring();
}

Result<ShmStream::Read> ShmStream::read(Frame& frame) {
  MOESAIC_TRY(const auto record, memory_->reader.next());
  if (!record) return Read::kNothing;
  if (record->total > limits_.max_frame_bytes)
    return fail(Errc::kCorrupt, "shared ring: a frame of " + std::to_string(record->total) +
                                    " bytes, at most " + std::to_string(limits_.max_frame_bytes));
  if (assembly_bytes_ > 0 || record->bytes.size() < record->total) return add_piece(*record, frame);
  auto decoded = decode(record->bytes);
  release();
  return taken(decoded, frame);
}

Result<ShmStream::Read> ShmStream::add_piece(const RingRecord& record, Frame& frame) {
  if (assembly_bytes_ == 0) {
    assembly_bytes_ = record.total;
    assembly_ = AlignedBuffer(record.total);
  }
  const auto bytes = record.bytes.size();
  if (record.total != assembly_bytes_ || bytes > assembly_bytes_ - assembled_)
    return fail(Errc::kCorrupt, "shared ring: a piece of a frame of " +
                                    std::to_string(record.total) + " bytes in one of " +
                                    std::to_string(assembly_bytes_));
  std::memcpy(assembly_.data() + assembled_, record.bytes.data(), bytes);
  assembled_ += bytes;
  release();
  if (assembled_ < assembly_bytes_) return Read::kPiece;
  auto decoded = decode({assembly_.data(), assembly_bytes_});
  assembly_ = {};
  assembly_bytes_ = assembled_ = 0;
  return taken(decoded, frame);
}

}  // namespace moesaic::transport
