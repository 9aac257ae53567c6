#include "common/kernels/expert_tree.hpp"

#include <algorithm>
#include <bit>
#include <cassert>

#include "common/kernels/elementwise.hpp"

namespace moesaic {
namespace {

bool by_number(const TreeNode& a, const TreeNode& b) { return a.node < b.node; }

void add(const TreeNode& from, std::size_t hidden, Compute form, const TreeNode& to) {
  if (form == Compute::kBf16)
    add_to(static_cast<const Bf16*>(from.value), hidden, static_cast<Bf16*>(to.value));
  else
    add_to(static_cast<const float*>(from.value), hidden, static_cast<float*>(to.value));
}

}  // namespace

std::size_t expert_tree_leaves(std::size_t experts) { return std::bit_ceil(experts); }

std::uint64_t expert_tree_below(std::uint32_t node, std::size_t leaves) {
  std::size_t first = node, count = 1;
  for (; first < leaves; first *= 2) count *= 2;
  first -= leaves;
  const std::uint64_t ones = count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
  return ones << first;
}

std::size_t merge_tree(std::span<TreeNode> nodes, std::uint64_t chosen, std::size_t leaves,
                       std::size_t hidden, Compute form) {
  assert(std::has_single_bit(leaves) && leaves <= 64);
  std::size_t count = nodes.size();
  // Each turn lifts the deepest node that can still rise; a node that cannot is maximal.
  std::size_t stuck = 0;
  while (stuck < count) {
    const auto active = nodes.subspan(stuck, count - stuck);
    const auto deepest = std::max_element(active.begin(), active.end(), by_number);
    const std::uint32_t number = deepest->node, sibling = number ^ 1U;
    if (number == 1 || (chosen & expert_tree_below(sibling, leaves)) == 0) {
      if (number == 1) break;
      deepest->node = number / 2;
      continue;
    }
    const auto other = std::find_if(active.begin(), active.end(),
                                    [&](const TreeNode& n) { return n.node == sibling; });
    if (other == active.end()) {
      std::swap(*deepest, active.front());
      ++stuck;
      continue;
    }
    // Addition is commutative in IEEE arithmetic, so either may be the accumulator.
    add(*deepest, hidden, form, *other);
    other->node = number / 2;
    *deepest = active.back();
    --count;
  }
  std::sort(nodes.begin(), nodes.begin() + static_cast<std::ptrdiff_t>(count), by_number);
  return count;
}

}  // namespace moesaic
