#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/base/result.hpp"

namespace moesaic::cluster {

/// What routers must agree on, and nothing else: who leads, and the placement in force. Everything
/// else is soft state that members tell each router.
struct RegistryEvent {
  enum class Kind : std::uint8_t {
    kLeading,    ///< this router leads from now on; `term` is larger than any before
    kFollowing,  ///< another does, or nobody is known to (the registry is out of reach)
    kPlacement,  ///< the stored placement changed: `epoch`, `yaml`
  };
  Kind kind{};
  std::uint64_t term = 0;
  std::string leader;
  std::uint32_t epoch = 0;
  std::string yaml;
};

/// Owned by the router's main. Events come one at a time, on a thread of its own or inside `start`
/// and `store`, and must only be posted on: the callback calls nothing of the registry.
class Registry {
 public:
  virtual ~Registry() = default;
  /// Begins to take part. Nothing fails here: an unreachable store is tried for ever, and told as
  /// kFollowing.
  virtual void start(std::function<void(RegistryEvent)> on_event) = 0;
  /// Stores a placement; its kPlacement event follows at every router, this one too. A router that
  /// begins to lead hears of the stored placement before its kLeading. May take two seconds: not
  /// from an actor's handler.
  /// @errors kUnavailable: no leader's term, or the store is out of reach; kInvalidArgument: epoch
  /// not larger than the stored one; kIo: it cannot be kept
  [[nodiscard]] virtual Result<void> store(std::uint64_t term, std::uint32_t epoch,
                                           const std::string& yaml) = 0;
  /// Gives leadership up at once. Any thread.
  virtual void stop() = 0;
};

/// One router: it leads at once, term = its incarnation.
/// @param kept file that a stored placement is kept in for the next start; empty: it is forgotten
/// when the router ends. It can be deleted while no router runs.
std::unique_ptr<Registry> make_embedded_registry(std::string name, std::uint64_t term,
                                                 std::filesystem::path kept = {});

struct EtcdOptions {
  std::vector<std::string> endpoints;  ///< http://host:port, tried in turn
  std::string prefix = "/moesaic/";    ///< of all keys
  std::string name;                    ///< this router
  unsigned lease_seconds = 3;
};
/// Leader election, lease, watch and placement in etcd over its v3 JSON gateway.
std::unique_ptr<Registry> make_etcd_registry(EtcdOptions options);

}  // namespace moesaic::cluster
