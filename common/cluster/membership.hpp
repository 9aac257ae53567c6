#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "common/cluster/messages.hpp"
#include "common/cluster/view.hpp"
#include "common/transport/endpoint.hpp"

namespace moesaic::cluster {

/// A service's side of the control plane: registers with every router, renews the leases, keeps the
/// last view. A plain class without sockets: its owner hands it the events of the endpoint that
/// connects to the routers, and a tick some ten times a second; it sends through a callback. One
/// thread at a time; `view` gives an immutable value that may go to other threads.
class Membership {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    std::chrono::milliseconds heartbeat{200};
    /// Silence of all leading routers after which `leader_lost` says so.
    std::chrono::milliseconds leader_timeout{1000};
    /// Wall clock in microseconds since 1970, told when registering.
    std::function<std::int64_t()> wall_clock_us;
  };

  /// Called from within `on_event` and `tick`; all but `send` may be empty. They must not call back
  /// into this object, but for `prepared` and `adopted`.
  struct Callbacks {
    std::function<void(transport::PeerId, transport::Frame)> send;
    /// A newer view: members, or placement, or both.
    std::function<void(const std::shared_ptr<const View>&)> on_view;
    /// Shards: load these experts, then call `prepared`, once per layer or for several at once. May
    /// come again for the same epoch: answer again.
    std::function<void(const PlacementTable&)> on_prepare;
    /// Shards: what this table does not give may go.
    std::function<void(const PlacementTable&)> on_release;
    std::function<void()> on_drain;
    /// A router does not take us (another of our name is there, other version, other model); tried
    /// again with each heartbeat. Told when the text changes.
    std::function<void(const Error&)> on_refused;
  };

  Membership(Member self, Options options, Callbacks callbacks);

  /// kUp registers with that router; kDown and kFrame as they come. Frames that are not control
  /// frames, or malformed, are ignored.
  void on_event(const transport::Event& event, Clock::time_point now);
  void tick(Clock::time_point now);

  /// What the next heartbeat says; `epoch` is filled in if it is 0. A change of `ready` or
  /// `draining` is told with the next tick.
  void set_load(Load load);
  /// Changes what the member tells of itself (addresses known only later); registers again.
  void set_member(Member self);

  /// To the router that asked with this epoch.
  void prepared(Prepared prepared);
  /// No question of a view before this one is under way any more. Dispatchers call it for every
  /// view; a service that never dispatches need not.
  void adopted(std::uint64_t version);

  /// The newest view, from whichever router; kept when routers are lost. Null: none yet. While a
  /// new leader has not rebuilt the placement (epoch 0), the view keeps the last placement there
  /// was.
  const std::shared_ptr<const View>& view() const { return view_; }
  /// No leading router has been heard of for a while; true at first.
  bool leader_lost() const { return leader_lost_; }
  /// Some router has granted a lease and its connection stands.
  bool registered() const;

 private:
  struct Router {
    bool leased = false;
    bool leading = false;
    Clock::time_point heard{};
    std::string refusal;
  };

  void take(transport::PeerId peer, Router& router, const transport::Frame& frame,
            Clock::time_point now);
  void take_view(transport::PeerId peer, View view);
  void send_register(transport::PeerId peer);

  Member self_;
  Options options_;
  Callbacks callbacks_;
  Load load_;
  bool load_urgent_ = false;
  Clock::time_point next_heartbeat_{};
  std::map<transport::PeerId, Router> routers_;  ///< those whose connection stands
  std::shared_ptr<const View> view_;
  transport::PeerId view_from_ = 0;
  std::uint64_t adopted_ = 0;  ///< version of a view; 0: none
  std::deque<std::pair<std::uint32_t, transport::PeerId>>
      asked_;                ///< epochs of kPrepare and who asked; the last few
  std::uint32_t epoch_ = 0;  ///< told with heartbeats, so that a new leader numbers on from there
  bool leader_lost_ = true;
};

}  // namespace moesaic::cluster
