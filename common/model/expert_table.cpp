#include "common/model/expert_table.hpp"

namespace moesaic {
namespace {

std::string name_of(const ExpertCall& call, std::uint32_t expert) {
  return "expert " + std::to_string(expert) + " (" +
         (call.modality == Modality::kText ? "text" : "vision") + ", layer " +
         std::to_string(call.layer) + ")";
}

}  // namespace

ExpertTable::ExpertTable(const ModelConfig& config, ExpertWeights weights, Compute compute)
    : hidden_(config.hidden),
      experts_(config.experts),
      weights_(std::move(weights)),
      compute_(compute) {}

bool ExpertTable::holds(std::uint32_t layer, Modality modality, std::uint32_t expert) const {
  if (layer >= weights_.layers.size()) return false;
  const auto& experts = weights_.layers[layer][static_cast<std::size_t>(modality)];
  return expert < experts.size() && experts[expert].gate_up.data != nullptr;
}

std::uint64_t ExpertTable::bytes() const {
  std::uint64_t sum = 0;
  for (const auto& layer : weights_.layers)
    for (const auto& experts : layer)
      for (const auto& expert : experts)
        if (expert.gate_up.data != nullptr) sum += expert.gate_up.bytes() + expert.down.bytes();
  return sum;
}

Result<void> ExpertTable::compute(const ExpertCall& call, ExpertScratch& s,
                                  ThreadPool& pool) const {
  const std::size_t rows = call.rows.size();
  const std::size_t top_k = call.ids.size() / rows;
  const bool form_fits = call.x.compute == normed_form(compute_) ||
                         (compute_ == Compute::kInt && call.x.compute == Compute::kInt);
  if (call.x.cols != hidden_ || !form_fits || call.ids.size() != rows * top_k ||
      call.weights.size() != call.ids.size() || call.chosen.size() != rows)
    return fail(Errc::kShapeMismatch, "expert call: " + std::to_string(rows) + " rows, " +
                                          std::to_string(call.ids.size()) + " ids, " +
                                          std::to_string(call.weights.size()) + " weights, " +
                                          std::to_string(call.chosen.size()) + " masks, width " +
                                          std::to_string(call.x.cols) + ", expected " +
                                          std::to_string(hidden_));

  // Sort entries by expert (counting sort, stable in row order).
  const auto modality = static_cast<std::size_t>(call.modality);
  const std::uint32_t experts = experts_[modality];
  s.count.assign(experts + 1, 0);
  for (const auto id : call.ids) {
    if (id == kNoExpert) continue;
    if (!holds(call.layer, call.modality, id))
      return fail(Errc::kNotFound, name_of(call, id) + " is not held here");
    const auto& gate_up = weights_.layers[call.layer][modality][id].gate_up;
    if (call.x.compute == Compute::kInt &&
        (!is_integer(gate_up.format) || gate_up.padded_cols() != call.x.stride))
      return fail(Errc::kShapeMismatch, name_of(call, id) + " is stored in " +
                                            std::string(format_name(gate_up.format)) +
                                            " and cannot take int8 rows of " +
                                            std::to_string(call.x.stride) + " columns");
    ++s.count[id + 1];
  }
  for (std::uint32_t e = 0; e < experts; ++e) s.count[e + 1] += s.count[e];
  const std::size_t entries = s.count[experts];
  const auto leaf_rows = s.leaves.resize(node_form(), entries, hidden_);
  s.row.resize(entries);
  s.weight.resize(entries);
  s.out.resize(entries);
  s.nodes.resize(entries);
  const std::size_t leaves = expert_tree_leaves(experts);
  // Leaf values lie row by row, as the tree wants them; experts write to them through `out`.
  std::size_t next_leaf = 0;
  s.entry_row.assign(rows + 1, 0);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t k = 0; k < top_k; ++k) {
      const auto id = call.ids[r * top_k + k];
      if (id == kNoExpert) continue;
      const auto entry = s.count[id]++;
      s.row[entry] = call.rows[r];
      s.weight[entry] = call.weights[r * top_k + k];
      s.out[entry] = leaf_rows.row(next_leaf);
      s.nodes[next_leaf] = {static_cast<std::uint32_t>(leaves + id), s.out[entry]};
      ++next_leaf;
    }
    s.entry_row[r + 1] = static_cast<std::uint32_t>(next_leaf);
  }

  const auto& held = weights_.layers[call.layer][modality];
  s.tasks.clear();
  for (std::uint32_t e = 0, first = 0; e < experts; ++e) {
    const auto last = s.count[e];  // the sort moved each count to the end of its expert
    if (last > first)
      s.tasks.push_back({&held[e].gate_up, &held[e].down,
                         std::span(s.row).subspan(first, last - first),
                         std::span<const float>(s.weight).subspan(first, last - first),
                         s.out.data() + first, node_form()});
    first = last;
  }
  ffn(s.tasks, call.x, s.ffn, pool);
  return {};
}

std::span<const TreeNode> ExpertTable::merge(const ExpertCall& call, ExpertScratch& s,
                                             std::size_t r) const {
  const auto nodes =
      std::span(s.nodes).subspan(s.entry_row[r], s.entry_row[r + 1] - s.entry_row[r]);
  const std::size_t leaves = expert_tree_leaves(experts_[static_cast<std::size_t>(call.modality)]);
  return nodes.first(merge_tree(nodes, call.chosen[r], leaves, hidden_, node_form()));
}

Result<void> ExpertTable::run(const ExpertCall& call, ExpertScratch& s, ThreadPool& pool,
                              const TakeNode& take) const {
  if (call.rows.empty()) return {};
  MOESAIC_CHECK(compute(call, s, pool));
  for_rows(pool, call.rows.size(), [&](std::size_t r) {
    for (const auto& node : merge(call, s, r)) take(r, node.node, node.value);
  });
  return {};
}

Result<std::span<const ExpertNode>> ExpertTable::run(const ExpertCall& call, ExpertScratch& s,
                                                     ThreadPool& pool) const {
  if (call.rows.empty()) return std::span<const ExpertNode>{};
  const std::size_t rows = call.rows.size();
  MOESAIC_CHECK(compute(call, s, pool));
  // `count` is free again and takes how many nodes each row ends with.
  s.count.assign(rows, 0);
  for_rows(pool, rows, [&](std::size_t r) {
    s.count[r] = static_cast<std::uint32_t>(merge(call, s, r).size());
  });
  s.result.clear();
  for (std::size_t r = 0; r < rows; ++r)
    for (std::size_t i = 0; i < s.count[r]; ++i) {
      const auto& node = s.nodes[s.entry_row[r] + i];
      s.result.push_back({static_cast<std::uint32_t>(r), node.node, node.value});
    }
  return std::span<const ExpertNode>(s.result);
}

}  // namespace moesaic
