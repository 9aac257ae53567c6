#include "actors/transport_bridge/remote_members.hpp"

#include <algorithm>

#include "common/base/log.hpp"
#include "common/cluster/reach.hpp"

namespace moesaic {
namespace {

using Self = RemoteMembersActor::stateful_pointer<RemoteMembersState>;
using Clock = std::chrono::steady_clock;
using Kind = transport::Event::Kind;

constexpr std::chrono::milliseconds kProbeEvery{250};
// A decoder answers a probe at once; one that has not for so long cannot be counted on.
constexpr std::chrono::milliseconds kProbeValid{1500};

void connect(Self self, const std::string& key, const transport::Address& address) {
  const auto posted = self->state.link->post(
      [me = RemoteMembersActor(self), key, address](transport::Endpoint& endpoint) {
        const auto peer = endpoint.connect(address);
        if (peer)
          caf::anon_send(me, peer_atom::value, key, *peer);
        else
          log(LogLevel::kWarn, key + ": " + peer.error().what);
      });
  if (!posted) log(LogLevel::kWarn, key + ": " + posted.error().what);
}

void disconnect(Self self, RemoteMember& remote) {
  if (remote.proxy) self->send_exit(remote.proxy, caf::exit_reason::remote_link_unreachable);
  remote.proxy = nullptr;
  if (remote.peer == 0) return;
  self->state.by_peer.erase(remote.peer);
  const auto peer = remote.peer;
  // A link that takes no more is ending, and every connection with it.
  static_cast<void>(
      self->state.link->post([peer](transport::Endpoint& endpoint) { endpoint.close(peer); }));
}

/// Connects to members that are new or have moved, lets go of those that are no longer there.
void adopt(Self self, const cluster::View& view) {
  auto& state = self->state;
  for (auto it = state.members.begin(); it != state.members.end();) {
    if (view.find(it->second.member.role, it->second.member.name) != nullptr) {
      ++it;
    } else {
      disconnect(self, it->second);
      it = state.members.erase(it);
    }
  }
  for (const auto& seen : view.members) {
    const auto& role = seen.member.role;
    if (role != "decoder" && role != "vision-encoder") continue;
    const auto addresses = cluster::reachable_addresses(seen.member, state.parts.host);
    if (addresses.empty()) continue;
    const auto key = role + "/" + seen.member.name;
    const auto address = to_string(addresses.front()) + " " + addresses.front().server_key;
    auto& remote = state.members[key];
    if (remote.address != address) {
      disconnect(self, remote);
      remote = RemoteMember{};
      remote.member = {role, seen.member.name};
      remote.address = address;
      connect(self, key, addresses.front());
    }
    if (seen.load.draining && !remote.draining)
      self->send(state.parts.gateway, leave_atom::value,
                 std::make_shared<const Member>(remote.member));
    remote.draining = seen.load.draining;
  }
}

void came_up(Self self, const std::string& key, RemoteMember& remote) {
  log(LogLevel::kInfo, key + ": up");
  const SendFrame send = [link = self->state.link.get(), peer = remote.peer](auto frame,
                                                                             auto failed) {
    return link->send(peer, std::move(frame), std::move(failed));
  };
  const auto member = std::make_shared<const Member>(remote.member);
  const auto join = [&](auto proxy) {
    remote.proxy = caf::actor_cast<caf::actor>(proxy);
    using Contract = std::conditional_t<std::is_same_v<decltype(proxy), RemoteDecoderImpl>,
                                        DecoderActor, VisionEncoderActor>;
    self->send(self->state.parts.gateway, join_atom::value, member, Contract(proxy));
    if (remote.draining) self->send(self->state.parts.gateway, leave_atom::value, member);
  };
  if (remote.member.role == "decoder")
    join(RemoteDecoderImpl(self->spawn(remote_decoder, send)));
  else
    join(RemoteVisionImpl(self->spawn(remote_vision, send)));
}

void update_ready(Self self) {
  auto& state = self->state;
  const auto now = Clock::now();
  const bool ready = std::any_of(state.members.begin(), state.members.end(), [&](auto& entry) {
    const auto& remote = entry.second;
    return remote.proxy && remote.member.role == "decoder" && !remote.draining &&
           now - remote.probed < kProbeValid;
  });
  if (ready == state.ready) return;
  state.ready = ready;
  state.parts.on_ready(ready);
}

void take(Self self, const LinkEventPtr& event) {
  auto& state = self->state;
  const auto it = state.by_peer.find(event->peer);
  if (it == state.by_peer.end()) return;
  auto& remote = state.members.at(it->second);
  if (event->kind == Kind::kUp) {
    came_up(self, it->second, remote);
  } else if (event->kind == Kind::kDown) {
    if (remote.proxy) log(LogLevel::kWarn, it->second + ": down: " + event->detail);
    if (remote.proxy) self->send_exit(remote.proxy, caf::exit_reason::remote_link_unreachable);
    remote.proxy = nullptr;
    remote.probed = {};
    update_ready(self);
  } else if (event->kind == Kind::kFrame && remote.proxy) {
    if (event->frame.type == transport::FrameType::kProbed) {
      remote.probed = Clock::now();
      update_ready(self);
    } else {
      caf::anon_send(remote.proxy, event_atom::value, event);
    }
  }
}

void probe(Self self) {
  for (const auto& [key, remote] : self->state.members) {
    if (!remote.proxy || remote.member.role != "decoder") continue;
    transport::Frame frame;
    frame.type = transport::FrameType::kProbe;
    // An unsent probe is one that is not answered.
    static_cast<void>(self->state.link->send(remote.peer, std::move(frame)));
  }
  update_ready(self);
  self->delayed_send(self, kProbeEvery, probe_atom::value);
}

}  // namespace

RemoteMembersActor::behavior_type remote_members(
    RemoteMembersActor::stateful_pointer<RemoteMembersState> self, RemoteMembersParts parts) {
  auto& state = self->state;
  state.parts = std::move(parts);
  state.link = state.parts.open_link(
      [me = RemoteMembersActor(self)](transport::Endpoint&, transport::Event event) {
        caf::anon_send(me, event_atom::value,
                       LinkEventPtr(std::make_shared<const transport::Event>(std::move(event))));
      });
  self->delayed_send(self, kProbeEvery, probe_atom::value);
  return {
      [self](view_atom, const ViewPtr& view) { adopt(self, *view); },
      [self](event_atom, const LinkEventPtr& event) { take(self, event); },
      [self](peer_atom, const std::string& key, transport::PeerId peer) {
        const auto it = self->state.members.find(key);
        if (it == self->state.members.end()) return;
        it->second.peer = peer;
        self->state.by_peer[peer] = key;
      },
      [self](probe_atom) { probe(self); },
  };
}

}  // namespace moesaic
