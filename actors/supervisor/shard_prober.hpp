#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "actors/supervisor/ticker.hpp"
#include "common/cluster/view.hpp"
#include "common/transport/link.hpp"

namespace moesaic {

/// Knows whether the experts of the placement can be reached from here, because it asks: every
/// shard that holds some answers a probe a few times a second. Thread-safe.
class ShardProber {
 public:
  /// @param endpoint  connects to shards
  /// @param host      boot id of this machine
  ShardProber(std::unique_ptr<transport::Endpoint> endpoint, std::string host);

  void set_view(std::shared_ptr<const cluster::View> view);
  /// Which experts nobody answers for; nothing: all are there.
  std::optional<std::string> missing() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Shard {
    std::string address;
    transport::PeerId peer = 0;
    Clock::time_point answered{};
  };

  void tick();
  void adopt(transport::Endpoint& endpoint);
  void take(const transport::Event& event);

  const std::string host_;
  mutable std::mutex mutex_;  ///< guards what follows
  std::shared_ptr<const cluster::View> view_;
  std::map<std::string, Shard> shards_;  ///< by name
  std::unique_ptr<transport::Link> link_;
  std::unique_ptr<Ticker> ticker_;  ///< last: it uses the others
};

}  // namespace moesaic
