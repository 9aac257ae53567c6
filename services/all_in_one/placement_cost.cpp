#include "services/all_in_one/placement_cost.hpp"

#include <algorithm>
#include <bit>
#include <random>
#include <span>

#include "common/engine/owner_choice.hpp"
#include "common/kernels/expert_tree.hpp"
#include "common/transport/wire.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kSamples = 10'000;

Tensor bytes_tensor(std::size_t bytes) { return {DType::kU8, {static_cast<std::int64_t>(bytes)}}; }

/// Bytes on the wire of a frame with tensors of these sizes.
double frame_bytes(std::initializer_list<std::size_t> tensors) {
  transport::Frame frame;
  for (const auto bytes : tensors) frame.tensors.push_back(bytes_tensor(bytes));
  return static_cast<double>(transport::encoded_size(frame));
}

/// How many maximal nodes a shard answers that computes `mine` of `chosen`.
std::size_t maximal_nodes(std::uint32_t node, std::size_t leaves, std::uint64_t chosen,
                          std::uint64_t mine) {
  const auto below = expert_tree_below(node, leaves) & chosen;
  if ((below & mine) == 0) return 0;
  if ((below & ~mine) == 0) return 1;
  return maximal_nodes(2 * node, leaves, chosen, mine) +
         maximal_nodes(2 * node + 1, leaves, chosen, mine);
}

std::vector<std::uint64_t> sample_choices(std::size_t experts, std::size_t top_k) {
  std::mt19937_64 random(1);
  std::vector<std::uint64_t> choices(kSamples);
  for (auto& chosen : choices) {
    while (static_cast<std::size_t>(std::popcount(chosen)) < std::min(top_k, experts))
      chosen |= std::uint64_t{1} << random() % experts;
  }
  return choices;
}

/// Adds one layer, weighted.
void add_layer(TokenCost& cost, std::span<const cluster::ShardSet> owners,
               const std::vector<std::uint64_t>& choices, std::size_t leaves,
               const std::vector<double>& answer_bytes, double question_bytes, double weight) {
  const auto shards = cost.shards.size();
  std::vector<std::uint64_t> wanted = choices, load(shards), asked;
  choose_owners(owners, ~cluster::ShardSet{0}, wanted, load, 0, asked);
  const auto each = weight / static_cast<double>(kSamples);
  for (std::size_t row = 0; row < kSamples; ++row) {
    int busiest = 0;
    for (std::size_t s = 0; s < shards; ++s) {
      const auto mine = asked[s * kSamples + row];
      if (mine == 0) continue;
      const auto experts = std::popcount(mine);
      busiest = std::max(busiest, experts);
      const auto nodes = maximal_nodes(1, leaves, choices[row], mine);
      auto& shard = cost.shards[s];
      shard.asked += each;
      shard.experts += each * experts;
      shard.nodes += each * static_cast<double>(nodes);
      shard.bytes_out += each * question_bytes;
      shard.bytes_back += each * answer_bytes[nodes];
    }
    cost.busiest_experts += each * busiest;
  }
}

}  // namespace

double TokenCost::shard_bytes() const {
  double bytes = 0;
  for (const auto& shard : shards) bytes += shard.bytes_out + shard.bytes_back;
  return bytes;
}

TokenCost token_cost(const cluster::PlacementTable& table, const cluster::ExpertGeometry& geometry,
                     std::size_t pool) {
  TokenCost cost;
  cost.shards.resize(table.shards.size());
  if (table.experts[pool] == 0) return cost;
  const std::size_t top_k = geometry.top_k;
  cost.router_out = frame_bytes({geometry.row_bytes, 1});
  cost.router_back = frame_bytes({geometry.node_bytes});
  const auto question_bytes = frame_bytes({geometry.row_bytes, 4 * top_k, 4 * top_k, 8});
  std::vector<double> answer_bytes;
  for (std::size_t nodes = 0; nodes <= top_k; ++nodes)
    answer_bytes.push_back(frame_bytes({8 * nodes, nodes * geometry.node_bytes}));
  const auto choices = sample_choices(table.experts[pool], top_k);
  const auto leaves = expert_tree_leaves(table.experts[pool]);

  // Layers with the same owners cost the same.
  std::vector<std::pair<std::vector<cluster::ShardSet>, double>> kinds;
  std::size_t layers = 0;
  for (std::size_t layer = 0; layer < table.layers; ++layer) {
    if (!geometry.layer_is_moe[layer]) continue;
    ++layers;
    const auto first =
        table.owners.begin() + static_cast<std::ptrdiff_t>(table.index(layer, pool, 0));
    std::vector<cluster::ShardSet> owners(first, first + table.experts[pool]);
    const auto same = std::find_if(kinds.begin(), kinds.end(),
                                   [&](const auto& kind) { return kind.first == owners; });
    if (same == kinds.end())
      kinds.emplace_back(std::move(owners), 1);
    else
      same->second += 1;
  }
  for (const auto& [owners, count] : kinds)
    add_layer(cost, owners, choices, leaves, answer_bytes, question_bytes,
              count / static_cast<double>(layers));
  return cost;
}

double layer_seconds(const TokenCost& cost, std::uint64_t expert_bytes, double bytes_per_s,
                     double round_trip_s, unsigned round_trips) {
  return cost.busiest_experts * static_cast<double>(expert_bytes) / bytes_per_s +
         round_trips * round_trip_s;
}

}  // namespace moesaic
