#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "common/engine/topology.hpp"
#include "common/transport/endpoint.hpp"

namespace moesaic {

/// Connections of one endpoint to the shards of a placement: one per address of a shard, the first
/// that is up is used. Used on the endpoint's thread.
class ShardLinks {
 public:
  /// Counts shards by name, from 0; a number is never reused.
  using Number = std::size_t;

  explicit ShardLinks(transport::Endpoint& endpoint) : endpoint_(endpoint) {}

  /// Connects to the shards of this topology and closes all other connections.
  /// @return shards that were up and are no longer
  std::vector<Number> use(const Topology& topology);

  /// Takes note of a kUp or kDown; nothing unless it changes whether a shard can be reached, or
  /// by which connection.
  std::optional<Number> note(const transport::Event& event);

  /// The numbers of the placement's shards, in its order.
  const std::vector<Number>& numbers() const { return numbers_; }
  /// Shards of the placement that are up.
  cluster::ShardSet alive() const;
  /// The connection to use; none: the shard is down.
  std::optional<transport::PeerId> peer(Number shard) const;
  const std::string& name(Number shard) const { return shards_[shard].name; }
  std::size_t count() const { return shards_.size(); }

 private:
  struct Path {
    transport::Address address;
    transport::PeerId peer = 0;
    bool up = false;
  };
  struct Shard {
    std::string name;
    std::vector<Path> paths;  ///< best first
  };
  Number number_of(const std::string& name);

  transport::Endpoint& endpoint_;
  std::vector<Shard> shards_;
  std::vector<Number> numbers_;
};

}  // namespace moesaic
