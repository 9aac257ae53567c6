#include "common/transport/shm_connection.hpp"

#include <bit>

namespace moesaic::transport {
namespace {

// A segment: a page with the control words of both rings, the ring to the listening end, the ring
// from it.
constexpr std::size_t kControlBytes = 4096;
constexpr std::uint64_t kMaxRing = std::uint64_t{64} << 20;

RingMemory ring_memory(const Mapping& control, const Mapping& ring, std::size_t index,
                       std::size_t capacity) {
  auto* words = reinterpret_cast<RingControl*>(control.data()) + index;
  return {words, ring.data(), capacity};
}

std::size_t segment_bytes(std::uint64_t ring_bytes) {
  return kControlBytes + 2 * static_cast<std::size_t>(ring_bytes);
}

}  // namespace

ShmConnection::ShmConnection(Mapping control_page, std::array<Mapping, 2> ring_pages,
                             std::size_t capacity, bool accepted, PeerDoorbell bell)
    : control(std::move(control_page)),
      rings(std::move(ring_pages)),
      doorbell(std::move(bell)),
      writer(ring_memory(control, rings[accepted ? 1 : 0], accepted ? 1 : 0, capacity)),
      reader(ring_memory(control, rings[accepted ? 0 : 1], accepted ? 0 : 1, capacity)) {}

Result<ShmOffer> make_offer(std::size_t ring_bytes) {
  ShmOffer offer;
  offer.hello.ring_bytes = ring_bytes;
  MOESAIC_TRY(offer.memory, make_shared_memory(segment_bytes(ring_bytes)));
  return offer;
}

Result<std::shared_ptr<ShmConnection>> open_connection(const Descriptor& memory,
                                                       std::uint64_t ring_bytes,
                                                       const Descriptor& doorbell, Descriptor event,
                                                       bool accepted) {
  if (ring_bytes < kMinRing || ring_bytes > kMaxRing || !std::has_single_bit(ring_bytes))
    return fail(Errc::kCorrupt, "shared rings of " + std::to_string(ring_bytes) +
                                    " bytes: no power of two from " + std::to_string(kMinRing) +
                                    " to " + std::to_string(kMaxRing));
  MOESAIC_CHECK(check_shared_memory(memory, segment_bytes(ring_bytes)));
  const auto capacity = static_cast<std::size_t>(ring_bytes);
  MOESAIC_TRY(auto control, Mapping::map(memory, 0, kControlBytes));
  MOESAIC_TRY(auto first, Mapping::map(memory, kControlBytes, capacity, true));
  MOESAIC_TRY(auto second, Mapping::map(memory, kControlBytes + capacity, capacity, true));
  MOESAIC_TRY(auto bell, PeerDoorbell::map(doorbell, std::move(event)));
  return std::make_shared<ShmConnection>(std::move(control),
                                         std::array{std::move(first), std::move(second)}, capacity,
                                         accepted, std::move(bell));
}

}  // namespace moesaic::transport
