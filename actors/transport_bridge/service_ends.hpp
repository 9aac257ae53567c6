#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "actors/contracts/actors.hpp"
#include "common/metrics/metrics.hpp"
#include "common/transport/link.hpp"

namespace moesaic {

using arrived_atom = caf::atom_constant<caf::atom("arrived")>;

/// What both ends below are given.
struct ServiceEndParts {
  /// Opens the link that listens; its events go to the function given.
  std::function<std::unique_ptr<transport::Link>(transport::Link::OnEvent)> open_link;
  /// Why this service cannot serve right now; nothing: it can. Any thread.
  std::function<std::optional<std::string>()> not_ready;
};

/// DECODER END: a decoder's answers to gateways in other processes. It is the token sink of all
/// their requests; a gateway that is lost has its requests cancelled.
using DecoderEndActor = TokenSink::extend<caf::reacts_to<arrived_atom, LinkEventPtr>>;

struct DecoderEndState {
  static constexpr const char* name = "decoder-end";
  DecoderEndState() = default;
  ServiceEndParts parts;
  DecoderActor decoder;
  std::unique_ptr<transport::Link> link;
  std::uint64_t next_id = 1;
  /// Numbers of requests at the decoder, which are unique over all gateways -> whose they are.
  std::map<std::uint64_t, std::pair<transport::PeerId, std::uint64_t>> open;
};

DecoderEndActor::behavior_type decoder_end(DecoderEndActor::stateful_pointer<DecoderEndState> self,
                                           ServiceEndParts parts, DecoderActor decoder);

/// VISION END: a vision encoder's answers to gateways in other processes.
using VisionEndActor = caf::typed_actor<caf::reacts_to<arrived_atom, LinkEventPtr>>;

struct VisionEndState {
  static constexpr const char* name = "vision-end";
  VisionEndState() = default;
  ServiceEndParts parts;
  VisionEncoderActor vision;
  std::unique_ptr<transport::Link> link;
  metrics::Histogram transfer = metrics::histogram("moesaic_vision_transfer_seconds");
};

VisionEndActor::behavior_type vision_end(VisionEndActor::stateful_pointer<VisionEndState> self,
                                         ServiceEndParts parts, VisionEncoderActor vision);

}  // namespace moesaic
