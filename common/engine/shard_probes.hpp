#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/cluster/placement_table.hpp"
#include "common/engine/shard_fan_out.hpp"

namespace moesaic {

/// Questions "can every expert be computed?", each answered by asking every shard. A state machine
/// beside a ShardFanOut, on the same endpoint and thread.
class ShardProbes {
 public:
  using Clock = std::chrono::steady_clock;
  /// Who asked, and under which number.
  struct Asker {
    transport::PeerId peer = 0;
    std::uint64_t sequence = 0;
  };
  /// Empty text: every expert has a shard that answered.
  struct Done {
    Asker asker;
    std::string missing;
  };

  ShardProbes(transport::Endpoint& endpoint, ShardFanOut& fan_out)
      : endpoint_(endpoint), fan_out_(fan_out) {}

  void start(Asker asker, Clock::time_point deadline);
  /// Takes a kProbed or kFailure of a shard.
  void handle(const transport::Frame& frame);
  /// Those that are answered or out of time by now.
  std::vector<Done> take_done(Clock::time_point now);
  Clock::time_point next_tick() const;

 private:
  struct Probe {
    Asker asker;
    Clock::time_point deadline;
    cluster::PlacementTable placement;
    std::map<std::uint64_t, std::size_t> waiting;  ///< sequence -> shard of the placement
    cluster::ShardSet answered = 0;
  };

  transport::Endpoint& endpoint_;
  ShardFanOut& fan_out_;
  std::vector<Probe> open_;
};

}  // namespace moesaic
