#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/cluster/control_plane.hpp"
#include "common/cluster/member_list.hpp"
#include "common/cluster/placement_file.hpp"
#include "common/cluster/placement_switch.hpp"
#include "common/transport/wire.hpp"

namespace moesaic::cluster {

/// What the control plane knows, and its steps: frames in control_frames.cpp, placement in
/// control_placement.cpp, views in control_plane.cpp. Private to these.
struct ControlPlane::Impl {
  using Frame = transport::Frame;
  using FrameType = transport::FrameType;
  using PeerId = transport::PeerId;

  /// A tool that waits for what comes of its kPlace or kDrain.
  struct Asker {
    PeerId peer = 0;
    std::uint64_t sequence = 0;
  };
  struct Peer {
    transport::Identity identity;
    std::string refusal;  ///< last one logged
  };

  explicit Impl(ControlConfig c)
      : config(std::move(c)),
        members({config.name, config.model_hash, config.version, transport::kWireVersion}) {}

  ControlConfig config;
  std::optional<PlacementFile> file;  ///< none: even ranges
  std::string yaml;                   ///< of `file`
  MemberList members;
  PlacementSwitch placement;
  std::map<PeerId, Peer> peers;
  ControlOutput out;

  bool leading = false;
  std::uint64_t term = 0;
  std::string leader;
  Clock::time_point leading_since{};
  std::uint32_t highest_epoch = 0;  ///< ever seen
  std::uint32_t stored_epoch = 0;   ///< in the registry

  // The change under way, or wanted.
  bool file_pending = false;  ///< `file` is new and has not been placed
  bool storing = false;       ///< the registry has been asked to store `yaml`
  Clock::time_point storing_since{};
  std::optional<Asker> asker;
  std::string yaml_before;  ///< `yaml` in force before the change
  Clock::time_point change_started{};
  std::uint64_t final_version = 0;  ///< all dispatchers must work with this view or a later one
  Clock::time_point repeated{};     ///< when it was pushed to them again
  std::string tried;                ///< shards for which no placement could be made
  std::string waiting_for;          ///< why there is no placement yet
  Clock::time_point last_tick{};
  Clock::time_point last_joined{};  ///< a shard

  std::shared_ptr<const View> view = std::make_shared<const View>();
  std::vector<std::byte> pushed;  ///< skeleton of the last view that was pushed
  bool pushing = false;           ///< this leader has begun to push views
  std::uint64_t version = 0;
  Clock::time_point pushed_at{};
  std::set<PeerId> need_view;  ///< registered since the last push

  void info(std::string text) { out.log.push_back({false, std::move(text)}); }
  void warn(std::string text) { out.log.push_back({true, std::move(text)}); }
  void send(PeerId to, Frame frame) {
    if (to != 0) out.messages.push_back({to, std::move(frame)});
  }
  bool alive(const std::string& shard) {
    const auto* entry = members.find("expert-shard", shard);
    return entry != nullptr && entry->state.alive;
  }

  // Frames.
  void take(PeerId peer, const Frame& frame, Clock::time_point now);
  Result<void> answer(PeerId peer, const Frame& frame, Clock::time_point now);
  Result<void> order(PeerId peer, const Frame& frame, Clock::time_point now);
  Result<void> join(PeerId peer, const Frame& frame, Clock::time_point now);
  void take_prepared(MemberList::Entry& entry, const Prepared& prepared, Clock::time_point now);
  void lose(const MemberList::Entry& entry, const std::string& why);
  void send_lease(PeerId peer);
  void look_at_clock(const Member& member);

  // Placement.
  std::vector<Member> eligible() const;
  std::string signature() const;
  Result<PlacementTable> target(const PlacementFile* from) const;
  Result<void> can_change() const;
  bool wants_change();
  bool outdated() const;
  void plan(Clock::time_point now);
  Result<void> change(Clock::time_point now);
  Result<PlacementSwitch> rehearse(const PlacementTable& next) const;
  Result<void> begin(PlacementTable next, Clock::time_point now);
  void abort(const std::string& why, Clock::time_point now);
  void advance(Clock::time_point now);
  void release(Clock::time_point now);
  void ask_shards(Clock::time_point now);
  void end_ask(const Result<void>& result);
  Result<void> place(const std::string& text, Clock::time_point now);
  Result<void> drain(const std::string& role, const std::string& name, Clock::time_point now);

  // Views.
  void settle(Clock::time_point now);
  void push(Clock::time_point now);
};

}  // namespace moesaic::cluster
