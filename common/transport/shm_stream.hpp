#pragma once

#include <deque>
#include <optional>

#include "common/transport/carrier.hpp"
#include "common/transport/shm_connection.hpp"

namespace moesaic::transport {

/// Frames over the rings of one connection. A frame that fits is encoded into the ring and decoded
/// out of it; one that does not waits its turn, and one larger than half the ring goes through it
/// in pieces. One thread.
class ShmStream {
 public:
  ShmStream(std::shared_ptr<ShmConnection> memory, const CarrierLimits& limits);

  /// @errors kOverloaded: as many frames as allowed wait already; kTooLarge
  [[nodiscard]] Result<void> send(Frame frame);
  /// Writes what waits, as far as there is room. @return something was written
  bool flush();
  bool has_waiting() const { return !waiting_.empty(); }

  enum class Read : std::uint8_t { kNothing, kPiece, kFrame, kMalformed };
  /// Takes one record. @param frame written if it ends one
  /// @errors kCorrupt: the peer breaks the rules of the ring: close the connection
  [[nodiscard]] Result<Read> read(Frame& frame);
  bool readable() const { return !memory_->reader.empty(); }

 private:
  struct Waiting {
    Frame frame;
    std::size_t bytes = 0;
    AlignedBuffer encoded{};  // of a frame that goes in pieces
    std::size_t written = 0;
  };
  std::size_t next_record(const Waiting& waiting) const;
  Result<Read> add_piece(const RingRecord& record, Frame& frame);
  void release();

  std::shared_ptr<ShmConnection> memory_;
  const CarrierLimits& limits_;
  std::deque<Waiting> waiting_;
  AlignedBuffer assembly_;  // of a frame that comes in pieces
  std::size_t assembly_bytes_ = 0;
  std::size_t assembled_ = 0;
};

}  // namespace moesaic::transport
