#pragma once

#include <memory>

#include "common/transport/shm_doorbell.hpp"
#include "common/transport/shm_ring.hpp"
#include "common/transport/shm_socket.hpp"

namespace moesaic::transport {

/// The shared parts of one connection. Made by the watcher, which reads the peer's pulse; the rings
/// belong to the carrier's thread.
struct ShmConnection {
  ShmConnection(Mapping control_page, std::array<Mapping, 2> ring_pages, std::size_t capacity,
                bool accepted, PeerDoorbell bell);

  Mapping control;
  std::array<Mapping, 2> rings;
  PeerDoorbell doorbell;
  RingWriter writer;
  RingReader reader;
};

/// The connecting end of a handshake: memory of its own making.
struct ShmOffer {
  Descriptor memory;
  ShmHello hello;
};
/// @errors kIo
[[nodiscard]] Result<ShmOffer> make_offer(std::size_t ring_bytes);

/// Maps what both ends have agreed on.
/// @param accepted we are the listening end
/// @errors kCorrupt: the peer sent something else than promised; kIo
[[nodiscard]] Result<std::shared_ptr<ShmConnection>> open_connection(const Descriptor& memory,
                                                                     std::uint64_t ring_bytes,
                                                                     const Descriptor& doorbell,
                                                                     Descriptor event,
                                                                     bool accepted);

}  // namespace moesaic::transport
