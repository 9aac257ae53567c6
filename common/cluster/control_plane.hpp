#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/cluster/messages.hpp"
#include "common/cluster/registry.hpp"
#include "common/cluster/view.hpp"
#include "common/transport/endpoint.hpp"

namespace moesaic::cluster {

struct ControlConfig {
  std::string name;  ///< this router's
  ExpertGeometry geometry;
  bool vision = false;         ///< the model has a vision tower, so a vision encoder is needed
  std::string placement_yaml;  ///< the placement file; empty: even ranges over all shards
  std::string placement_name = "placement";  ///< of the file, for texts
  std::size_t shards = 0;  ///< wait for so many before the first placement; 0: what the file needs,
                           ///< else 1
  std::string model_hash;  ///< members must have the same, or none
  std::string version;     ///< of this program
  std::chrono::milliseconds lease{1000};
  std::chrono::milliseconds forget{60'000};  ///< a dead member is shown so long
  /// After taking the lead, and after a new shard: time for others to register before a placement
  /// is made.
  std::chrono::milliseconds settle{1000};
  std::chrono::milliseconds resend{1000};  ///< an unanswered request of ours is sent again
  std::chrono::milliseconds change_timeout{600'000};
  std::function<std::int64_t()> wall_clock_us;  ///< microseconds since 1970
};

/// What the control plane wants done; in order.
struct ControlOutput {
  struct Message {
    transport::PeerId to = 0;
    transport::Frame frame;
  };
  struct Line {
    bool warning = false;
    std::string text;
  };
  struct Store {  ///< to the registry: Registry::store; its failure goes to `store_failed`
    std::uint64_t term = 0;
    std::uint32_t epoch = 0;
    std::string yaml;
  };
  std::vector<Message> messages;
  std::vector<Line> log;
  std::optional<Store> store;
};

/// The router's control: who is here, where the experts are, and how they move. A plain class: no
/// sockets, no actors, time is given. All state is soft but for the placement file in the registry:
/// after a restart members register again and the placement is made anew.
///
/// Members hold a lease each, renewed by heartbeats. Every router takes registrations; the one that
/// leads also pushes views and places experts. How a placement changes: placement_switch.hpp.
/// One thread at a time (the control actor).
class ControlPlane {
 public:
  using Clock = std::chrono::steady_clock;

  /// @errors of the placement file: those of parse_placement and check_placement
  [[nodiscard]] static Result<ControlPlane> make(ControlConfig config);
  ~ControlPlane();
  ControlPlane(ControlPlane&&) noexcept;
  ControlPlane& operator=(ControlPlane&&) noexcept;

  // What happens. Each may leave something in `take_output`.
  /// kUp, kDown and kFrame of the endpoint that listens for members and tools. PeerIds of a second
  /// endpoint must be made distinct by who calls.
  void on_event(const transport::Event& event, Clock::time_point now);
  void on_registry(const RegistryEvent& event, Clock::time_point now);
  void tick(Clock::time_point now);
  /// The registry did not take the last `store`.
  void store_failed(const Error& error);

  /// Serve by this placement file from now on. A tool's kPlace does this, too.
  /// @errors those of the file and of its match with the shards there are; kUnavailable: this
  /// router does not lead, or a change is under way
  [[nodiscard]] Result<void> place(const std::string& yaml, Clock::time_point now);
  /// Tells a member to end what it has; a shard's experts are moved elsewhere first.
  /// @errors kNotFound; kUnavailable as above, or the experts fit nowhere else
  [[nodiscard]] Result<void> drain(const std::string& role, const std::string& name,
                                   Clock::time_point now);

  /// Everything since the last call.
  ControlOutput take_output();

  /// The cluster now; a new value whenever it changes. Never null.
  const std::shared_ptr<const View>& view() const;
  bool leading() const;

 private:
  struct Impl;
  explicit ControlPlane(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace moesaic::cluster
