#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "common/cluster/placement_table.hpp"

namespace moesaic {

/// What a token costs on the wires and in the memories of a placement, layer by layer on average,
/// if every choice of top_k experts is as likely as any other. Found by sampling 10,000 choices
/// with a fixed seed, with the rule by which dispatchers choose among replicas; bytes are those of
/// the frames of one row.
struct TokenCost {
  struct Shard {
    double asked = 0;       ///< how often a token asks it
    double experts = 0;     ///< experts it computes for a token
    double nodes = 0;       ///< tree nodes it answers for a token
    double bytes_out = 0;   ///< questions to it
    double bytes_back = 0;  ///< answers from it
  };
  std::vector<Shard> shards;   ///< as in the table
  double busiest_experts = 0;  ///< experts of the shard with the most to do, on average
  double router_out = 0;       ///< central dispatch: decoder to router
  double router_back = 0;

  /// Between dispatcher and all shards, both ways.
  double shard_bytes() const;
};

/// @param pool 0 text, 1 vision
/// @pre the table was made for the geometry, and no expert is homeless
TokenCost token_cost(const cluster::PlacementTable& table, const cluster::ExpertGeometry& geometry,
                     std::size_t pool);

/// Seconds of one MoE layer for one token: the busiest shard reads its experts' weights, while
/// messages go there and back.
/// @param bytes_per_s memory bandwidth of a shard
/// @param round_trips of messages: 1 direct, 2 through a router
double layer_seconds(const TokenCost& cost, std::uint64_t expert_bytes, double bytes_per_s,
                     double round_trip_s, unsigned round_trips);

}  // namespace moesaic
