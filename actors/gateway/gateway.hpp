#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "actors/contracts/actors.hpp"

namespace moesaic {

using tick_atom = caf::atom_constant<caf::atom("tick")>;

/// The gateway's public interface plus its own clock.
using GatewayImpl = GatewayActor::extend<caf::reacts_to<tick_atom>>;

/// Whether members come and go.
enum class Members : std::uint8_t {
  kFixed,     ///< one process: a part that goes down does not come back, its requests fail
  kChanging,  ///< a cluster: requests of a part that goes down are done again by another
};

/// A job between its submission and its last event: also the record from which it is replayed.
struct OpenJob {
  GatewayJobPtr job;
  std::vector<VisualFeaturesPtr> features;  ///< [job->visuals], null until encoded
  std::vector<caf::actor_addr> encoders;    ///< [job->visuals] who works on it; null: nobody yet
  std::size_t to_encode = 0;                ///< features still missing
  std::vector<std::int32_t> tokens;         ///< of the answer so far
  std::vector<caf::actor_addr> full;        ///< decoders that refused it for want of room
  caf::actor_addr decoder;                  ///< who works on it; null: nobody
  std::uint64_t submission = 0;             ///< its number there
  unsigned attempts = 0;                    ///< submissions so far
};

/// A decoder or vision encoder.
template <class Handle>
struct GatewayMember {
  std::string name;
  Handle handle;
  std::size_t open = 0;  ///< jobs or images it works on for this gateway
  bool draining = false;
};

struct GatewayState {
  static constexpr const char* name = "gateway";
  // Declared: CAF would initialise an aggregate from the actor's pointer.
  GatewayState() = default;

  Members policy = Members::kFixed;
  std::vector<GatewayMember<DecoderActor>> decoders;
  std::vector<GatewayMember<VisionEncoderActor>> encoders;
  std::map<std::uint64_t, OpenJob> jobs;
  std::map<std::uint64_t, std::uint64_t> submissions;  ///< number at the decoder -> job
  std::uint64_t next_replay = 0;                       ///< numbers of submissions after the first
  std::uint64_t replays = 0;                           ///< requests taken over from a lost decoder
  std::vector<caf::response_promise> drains;
  bool draining = false;
  bool ticking = false;
};

/// The behaviour behind GatewayActor. Jobs go to the member with the least to do. Of a member that
/// goes down each image is encoded again elsewhere, and each sequence goes on at another decoder
/// from its last token, or waits for one until its deadline. Nothing hangs.
/// @param decoder, vision  the first members; null: they join later
GatewayImpl::behavior_type gateway(GatewayImpl::stateful_pointer<GatewayState> self, Members policy,
                                   DecoderActor decoder, VisionEncoderActor vision);

}  // namespace moesaic
