#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "common/base/result.hpp"
#include "common/base/thread_pool.hpp"
#include "common/kernels/expert_tree.hpp"
#include "common/kernels/linear.hpp"
#include "common/model/activations.hpp"
#include "common/model/config.hpp"
#include "common/model/weights.hpp"

namespace moesaic {

/// Rows of one layer and modality with the experts chosen for them.
struct ExpertCall {
  std::uint32_t layer = 0;
  Modality modality = Modality::kText;
  Operand x;  ///< [rows, hidden] as a norm leaves them, or quantised for the experts
  std::span<const std::uint32_t>
      rows;  ///< rows of x to work on; results are numbered by position in this list
  std::span<const std::uint32_t>
      ids;  ///< [rows.size() * top_k] experts to compute here; kNoExpert: another's
  std::span<const float> weights;  ///< [rows.size() * top_k]
  std::span<const std::uint64_t>
      chosen;  ///< [rows.size()] bit e: expert e was chosen, wherever it is computed
};
inline constexpr std::uint32_t kNoExpert = 0xffffffffU;

/// A value of the expert tree for one row of a call.
struct ExpertNode {
  std::uint32_t row = 0;        ///< position in ExpertCall::rows
  std::uint32_t node = 0;       ///< number in the tree
  const void* value = nullptr;  ///< [hidden] in node_form(); valid until the scratch's next run
};

/// Takes a node of a row (its position in `ExpertCall::rows`), as `ExpertNode`; the value is valid
/// during the call. Called by threads of the pool, for different rows at once.
using TakeNode = std::function<void(std::size_t row, std::uint32_t node, const void* value)>;

/// Memory of one caller of `ExpertTable::run`, reused from call to call.
struct ExpertScratch {
  FfnScratch ffn;
  OperandRows leaves;
  std::vector<FfnTask> tasks;
  std::vector<std::uint32_t> count, row, entry_row;
  std::vector<float> weight;
  std::vector<void*> out;
  std::vector<TreeNode> nodes;
  std::vector<ExpertNode> result;
};

/// The experts one process holds, and how a batch runs through them. Knows nothing of actors or
/// wires. Immutable, so thread-safe with one scratch per caller.
class ExpertTable {
 public:
  ExpertTable(const ModelConfig& config, ExpertWeights weights, Compute compute);

  /// True if the expert's matrices are here.
  bool holds(std::uint32_t layer, Modality modality, std::uint32_t expert) const;
  /// Of the values of nodes: kBf16 where the tree's sums are rounded, else kF32.
  Compute node_form() const { return normed_form(compute_); }
  /// Weight bytes of all experts held.
  std::uint64_t bytes() const;
  /// What is held. Copies share the matrices' memory, so tables with more or fewer experts are made
  /// from it at no cost.
  const ExpertWeights& weights() const { return weights_; }

  /// Computes, per row, each maximal node of the expert tree all of whose chosen experts are named
  /// in `call.ids`, in order of rows.
  /// @errors kNotFound: an expert that is not held here; kShapeMismatch: sizes of the call
  [[nodiscard]] Result<std::span<const ExpertNode>> run(const ExpertCall& call,
                                                        ExpertScratch& scratch,
                                                        ThreadPool& pool) const;
  /// The same nodes one by one, each while it is in the nearest cache; no order of rows, those of a
  /// row ascending. None is given if it fails.
  [[nodiscard]] Result<void> run(const ExpertCall& call, ExpertScratch& scratch, ThreadPool& pool,
                                 const TakeNode& take) const;

 private:
  /// Checks the call and computes the leaves of all rows, as nodes of the scratch. @pre has rows
  Result<void> compute(const ExpertCall& call, ExpertScratch& scratch, ThreadPool& pool) const;
  /// Merges the leaves of row r. @return its nodes
  std::span<const TreeNode> merge(const ExpertCall& call, ExpertScratch& scratch,
                                  std::size_t r) const;

  std::uint32_t hidden_;
  std::array<std::uint32_t, kModalities> experts_;
  ExpertWeights weights_;
  Compute compute_;
};

}  // namespace moesaic
