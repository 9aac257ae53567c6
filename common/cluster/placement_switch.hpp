#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/cluster/messages.hpp"
#include "common/cluster/placement_table.hpp"

namespace moesaic::cluster {

/// The placement in force, and its change into another while it serves.
///
/// A change goes through these states:
///   switching  shards load what the next table gives them and keep what they have; as soon as all
///              owners of a layer have it, the layer switches in the table in force, which carries
///              the next table's epoch from the first switch on
///   releasing  all layers have switched (or the change was aborted, and all are back); shards
///   still
///              hold both, until every dispatcher works with the final table
///   steady     shards hold what the table in force gives them, and nothing else
/// The very first placement (epoch 0 before it) switches all layers at once.
///
/// Which shards hold what is known from their answers alone, life by life: a shard that comes back
/// empty is asked again. A plain value; who is alive is told by the owner.
class PlacementSwitch {
 public:
  enum class State : std::uint8_t { kSteady, kSwitching, kReleasing };
  using Alive = std::function<bool(const std::string& shard)>;

  State state() const { return state_; }
  /// Epoch 0: there is none yet.
  const PlacementTable& in_force() const { return in_force_; }
  /// The table that is being switched to; epoch 0: none.
  const PlacementTable& next() const { return next_; }

  /// Starts a change.
  /// @pre state is kSteady, next.epoch is larger than any before
  /// @errors kTooLarge: old and next table name more than kMaxShards together
  [[nodiscard]] Result<void> begin(PlacementTable next);
  /// Switches every layer whose owners all are alive and have it.
  /// @return true if the table in force has changed
  bool advance(const Alive& alive);
  /// Back to the table before the change. If layers had switched, it gets an epoch of its own, the
  /// next table's plus one; else nothing was ever seen of the change.
  /// @pre state is kSwitching
  void abort();
  /// All dispatchers work with the table in force.
  /// @pre state is kReleasing
  void released() { state_ = State::kSteady; }
  /// Forgets everything, as in a new process.
  void reset() { *this = {}; }

  /// What the shard should load now, as kPrepare says it: its part of the tables before and after,
  /// as a table with it alone. Epoch 0: nothing. Grows when `prepared` has told of the former.
  PlacementTable wanted(const std::string& shard) const;
  /// Its part of the table in force alone, as kRelease says it.
  PlacementTable kept(const std::string& shard) const;

  /// The shard has loaded layers. Answers about other epochs are ignored.
  void prepared(const std::string& shard, const Prepared& prepared);
  /// The shard has a new life: it holds nothing.
  void emptied(const std::string& shard) { held_.erase(shard); }

  /// Everything of `wanted` is loaded.
  bool complete(const std::string& shard) const;
  /// Layers of the table in force that the shard serves, and how many of them it has loaded.
  struct Progress {
    std::size_t layers = 0;
    std::size_t loaded = 0;
  };
  Progress progress(const std::string& shard) const;
  /// It has that layer of the table in force.
  bool has(const std::string& shard, std::size_t layer) const;
  /// Layers switched so far, of how many.
  Progress switched() const;

 private:
  struct Held {
    std::vector<bool> before, after;  ///< [layers] its part of `before_`, of `next_`
  };
  bool owner(const PlacementTable& table, const std::string& shard, std::size_t layer) const;
  bool moe_layer(const PlacementTable& table, std::size_t layer) const;
  bool holds_before(const std::string& shard) const;
  void mix();

  State state_ = State::kSteady;
  PlacementTable before_;  ///< kSwitching: before the change; else equal to in_force_
  PlacementTable next_;    ///< kSwitching only
  PlacementTable in_force_;
  std::vector<bool> switched_;  ///< [layers]
  std::map<std::string, Held> held_;
};

}  // namespace moesaic::cluster
