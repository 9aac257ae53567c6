#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "actors/supervisor/ticker.hpp"
#include "common/base/load_state.hpp"
#include "common/cluster/membership.hpp"
#include "common/cluster/messages.hpp"
#include "common/cluster/view_metrics.hpp"
#include "common/config/settings.hpp"
#include "common/http/admin_server.hpp"
#include "common/trace/exporter.hpp"
#include "common/transport/carriers.hpp"
#include "common/transport/link.hpp"

namespace moesaic {

/// What a process tells of itself while it is a member, and what it is told. The functions are
/// called on threads of the node: they must not block, only read, or post on. All but `not_ready`
/// may be empty.
struct NodeMember {
  std::uint64_t capacity_bytes = 0;  ///< of a shard
  /// Why this service cannot serve right now; nothing: it can.
  std::function<std::optional<std::string>()> not_ready;
  std::function<cluster::Load()> load;     ///< `ready` and `detail` come from `not_ready`
  std::function<std::uint64_t()> adopted;  ///< of a dispatcher: Reach::adopted
  std::function<void(std::shared_ptr<const cluster::View>)> on_view;
  std::function<void(const cluster::PlacementTable&)> on_prepare;
  std::function<void(const cluster::PlacementTable&)> on_release;
  std::function<void()> on_drain;
  std::function<void(HttpRouter&)> add_routes;  ///< further routes of the admin server
};

/// What the five services have in common: who they are, their keys, the way to the routers, the
/// admin server. Owned by the service; thread-safe after `join`.
class Node {
 public:
  /// Reads sections node, transport, router, admin and trace.
  /// @errors kInvalidArgument, kIo, kCorrupt: a name, an address, a key file; those of
  /// TraceExporter::start
  [[nodiscard]] static Result<std::unique_ptr<Node>> open(const Settings& settings,
                                                          const std::string& role,
                                                          std::string model_hash);
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  const transport::Identity& identity() const { return identity_; }
  /// Of this process's spans. May outlive the node: its spans are then dropped.
  Tracer tracer() const { return exporter_->tracer(); }

  /// An endpoint with this process's keys.
  /// @param accepted_roles who may connect to it
  /// @param credits        questions one of them may have open
  [[nodiscard]] Result<std::unique_ptr<transport::Endpoint>> endpoint(
      std::vector<std::string> accepted_roles, std::uint16_t credits = 64);
  /// Listens on these addresses, comma-separated.
  /// @param announced  they become this member's data plane in everybody's view
  [[nodiscard]] Result<void> listen(transport::Endpoint& endpoint,
                                    const std::vector<std::string>& addresses, bool announced);

  /// Opens the admin port: from now on /health is well, and /ready tells how far loading is. Before
  /// `join`; what takes long to load calls it first.
  /// @param add_routes further routes of the admin server; they may be asked before `join`
  [[nodiscard]] Result<void> announce(const Settings& settings,
                                      const std::function<void(HttpRouter&)>& add_routes = {});
  /// For /ready: what is being loaded, and that it is over. Any thread.
  LoadState& load_state() { return load_state_; }
  /// Registers with the routers, again and again until destruction; opens the admin port unless
  /// that is done.
  [[nodiscard]] Result<void> join(const Settings& settings, NodeMember member);
  /// Tells the routers at once that this member takes nothing new.
  void drain() { draining_ = true; }

  // Thread-safe, after `join`.
  void prepared(cluster::Prepared message);
  std::shared_ptr<const cluster::View> view() const;
  /// Lines for the banner.
  std::string describe() const;

 private:
  Node() = default;
  void tick();
  Readiness readiness() const;
  Result<void> connect_routers(const Settings& settings);

  transport::Identity identity_;
  std::unique_ptr<TraceExporter> exporter_;
  std::shared_ptr<const transport::KeyRing> keys_;
  bool plaintext_ = false;
  cluster::Member self_;
  NodeMember member_;
  std::atomic<bool> joined_{false};  ///< `member_` may be used
  std::atomic<bool> draining_{false};
  LoadState load_state_;
  std::unique_ptr<cluster::Membership> membership_;  ///< on the link's thread only, as is:
  transport::Endpoint* endpoint_ = nullptr;          ///< what `membership_` sends by, while called
  cluster::ViewMetrics view_metrics_;                ///< the same
  mutable std::mutex mutex_;
  std::shared_ptr<const cluster::View> view_;  ///< guarded by mutex_
  std::unique_ptr<AdminServer> admin_;
  std::unique_ptr<transport::Link> link_;
  std::unique_ptr<Ticker> ticker_;  ///< last: it uses the others
};

}  // namespace moesaic
