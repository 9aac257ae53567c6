#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "actors/contracts/actors.hpp"
#include "actors/transport_bridge/remote_parts.hpp"
#include "common/cluster/view.hpp"
#include "common/transport/link.hpp"

namespace moesaic {

using ViewPtr = std::shared_ptr<const cluster::View>;
using view_atom = caf::atom_constant<caf::atom("view")>;
using peer_atom = caf::atom_constant<caf::atom("peer")>;
using probe_atom = caf::atom_constant<caf::atom("probe")>;

/// REMOTE MEMBERS: keeps a gateway connected to the decoders and vision encoders of the cluster.
using RemoteMembersActor = caf::typed_actor<
    // The cluster as it is now.
    caf::reacts_to<view_atom, ViewPtr>,
    // From the link.
    caf::reacts_to<event_atom, LinkEventPtr>,
    // A member's connection got its number.
    caf::reacts_to<peer_atom, std::string, transport::PeerId>, caf::reacts_to<probe_atom>>;

/// A member this gateway connects to.
struct RemoteMember {
  Member member;
  std::string address;
  transport::PeerId peer = 0;  ///< 0: not known yet
  caf::actor proxy;            ///< while it is up
  bool draining = false;
  std::chrono::steady_clock::time_point probed{};  ///< when it last said that it can serve
};

struct RemoteMembersParts {
  GatewayActor gateway;  ///< told who joins; their going down it sees by itself
  std::string host;      ///< boot id of this machine: which addresses are within reach
  /// Opens the link; its events go to the function given.
  std::function<std::unique_ptr<transport::Link>(transport::Link::OnEvent)> open_link;
  /// Told whether a decoder can serve, whenever that changes; on this actor's thread.
  std::function<void(bool)> on_ready;
};

struct RemoteMembersState {
  static constexpr const char* name = "remote-members";
  RemoteMembersState() = default;
  RemoteMembersParts parts;
  std::unique_ptr<transport::Link> link;
  std::map<std::string, RemoteMember> members;  ///< by "role/name"
  std::map<transport::PeerId, std::string> by_peer;
  bool ready = false;
};

RemoteMembersActor::behavior_type remote_members(
    RemoteMembersActor::stateful_pointer<RemoteMembersState> self, RemoteMembersParts parts);

}  // namespace moesaic

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::ViewPtr)
