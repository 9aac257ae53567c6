#pragma once

#include <functional>
#include <map>
#include <string>

#include "actors/contracts/actors.hpp"
#include "actors/contracts/token_sinks.hpp"

namespace moesaic {

/// Sends a frame to the remote service a proxy stands for. If it cannot be sent after all (no
/// credit, a full queue), `failed` is told, on another thread. Thread-safe.
using SendFrame =
    std::function<Result<void>(transport::Frame, std::function<void(const Error&)> failed)>;

using event_atom = caf::atom_constant<caf::atom("event")>;

/// A proxy is the remote service's typed interface plus what arrives from it.
using RemoteDecoderImpl = DecoderActor::extend<caf::reacts_to<event_atom, LinkEventPtr>>;
using RemoteVisionImpl = VisionEncoderActor::extend<caf::reacts_to<event_atom, LinkEventPtr>>;

struct RemoteDecoderState {
  static constexpr const char* name = "remote-decoder";
  RemoteDecoderState() = default;
  SendFrame send;
  std::uint64_t next_question = 1;
  std::map<std::uint64_t, caf::response_promise> asked;  ///< submissions without an answer yet
  std::map<std::uint64_t, std::uint64_t> asked_id;       ///< their request ids
  TokenSinks sinks;
};

/// A decoder in another process. Lives as long as the connection to it: whoever knows that it is
/// lost ends this actor, and those who monitor it learn of it as of a local one.
RemoteDecoderImpl::behavior_type remote_decoder(
    RemoteDecoderImpl::stateful_pointer<RemoteDecoderState> self, SendFrame send);

struct RemoteVisionState {
  static constexpr const char* name = "remote-vision-encoder";
  RemoteVisionState() = default;
  SendFrame send;
  std::uint64_t next_question = 1;
  std::map<std::uint64_t, caf::response_promise> asked;
};

/// A vision encoder in another process; as `remote_decoder`.
RemoteVisionImpl::behavior_type remote_vision(
    RemoteVisionImpl::stateful_pointer<RemoteVisionState> self, SendFrame send);

}  // namespace moesaic
