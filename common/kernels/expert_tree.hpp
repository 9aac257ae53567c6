#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/kernels/compute.hpp"

namespace moesaic {

/// Fixed binary tree over expert ids: P = power of two >= experts, node 1 is the root, node i has
/// children 2i and 2i+1, leaf e is node P + e. Only chosen experts are non-empty. node = round(left
/// + right), or its only non-empty child unchanged; round is to bf16, or nothing in f32. The bits
/// of the root depend on the chosen ids only, not on who computed what.
std::size_t expert_tree_leaves(std::size_t experts);

/// The leaves below `node`, as a mask of expert ids.
/// @pre 1 <= node < 2 * leaves, leaves <= 64
std::uint64_t expert_tree_below(std::uint32_t node, std::size_t leaves);

/// One non-empty node of a row: its number and its [hidden] value, f32 or Bf16.
struct TreeNode {
  std::uint32_t node = 0;
  void* value = nullptr;
};

/// Merges, in place, every pair of nodes whose subtrees hold all that was chosen below their
/// parent, until only maximal nodes are left.
/// @param nodes  the row's nodes computed so far, any order, no node an ancestor of another; values
/// are overwritten by sums
/// @param chosen bit e: expert e was chosen for this row
/// @param leaves P
/// @param hidden length of a value
/// @param form   of values: kF32, or kBf16, to which sums are rounded
/// @return how many nodes are left; they stand first in `nodes`, ascending by node number. A
/// complete row ends as the single node 1.
std::size_t merge_tree(std::span<TreeNode> nodes, std::uint64_t chosen, std::size_t leaves,
                       std::size_t hidden, Compute form);

}  // namespace moesaic
