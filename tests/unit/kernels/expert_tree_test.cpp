#include "common/kernels/expert_tree.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "common/kernels/elementwise.hpp"
#include "common/tensor/bf16.hpp"
#include "tests/support/kernel_values.hpp"

namespace moesaic {
namespace {

using test::gaussian;
using test::same_bits;

constexpr std::size_t kHidden = 37;

Compute form_of(bool round) { return round ? Compute::kBf16 : Compute::kF32; }

/// The rows of one token's chosen experts, bf16-valued, and merging of any part of them.
struct Row {
  std::size_t leaves;
  std::uint64_t chosen = 0;
  std::map<std::uint32_t, std::vector<float>> leaf;

  Row(const std::vector<std::uint32_t>& experts, std::size_t p, unsigned seed) : leaves(p) {
    for (const auto e : experts) {
      chosen |= std::uint64_t{1} << e;
      leaf[e] = gaussian(kHidden, seed * 100 + e);
      for (auto& v : leaf[e]) v = round_to_bf16(v);
    }
  }

  struct Part {
    std::uint32_t node;
    std::vector<float> value;
  };

  std::vector<Part> merge(std::vector<Part> parts, bool round) const {
    std::vector<TreeNode> nodes;
    std::vector<std::vector<Bf16>> rounded(parts.size(), std::vector<Bf16>(kHidden));
    for (std::size_t i = 0; i < parts.size(); ++i) {
      auto& value = parts[i].value;
      std::transform(value.begin(), value.end(), rounded[i].begin(), f32_to_bf16);
      nodes.push_back(
          {parts[i].node, round ? static_cast<void*>(rounded[i].data()) : value.data()});
    }
    const std::size_t left = merge_tree(nodes, chosen, leaves, kHidden, form_of(round));
    std::vector<Part> out;
    for (std::size_t i = 0; i < left; ++i) {
      out.push_back({nodes[i].node, std::vector<float>(kHidden)});
      widen(form_of(round), nodes[i].value, kHidden, out.back().value.data());
    }
    return out;
  }

  std::vector<Part> leaves_of(const std::vector<std::uint32_t>& experts) const {
    std::vector<Part> parts;
    for (const auto e : experts)
      parts.push_back({static_cast<std::uint32_t>(leaves + e), leaf.at(e)});
    return parts;
  }

  /// The definition, written as a recursion; empty for an empty subtree.
  std::vector<float> sum_below(std::uint32_t node, bool round) const {
    if (node >= leaves) {
      const auto it = leaf.find(static_cast<std::uint32_t>(node - leaves));
      return it == leaf.end() ? std::vector<float>{} : it->second;
    }
    auto left = sum_below(2 * node, round), right = sum_below(2 * node + 1, round);
    if (left.empty() || right.empty()) return left.empty() ? right : left;
    for (std::size_t i = 0; i < kHidden; ++i)
      left[i] = round ? round_to_bf16(left[i] + right[i]) : left[i] + right[i];
    return left;
  }
};

TEST(ExpertTreeTest, LeavesAreAPowerOfTwo) {
  EXPECT_EQ(expert_tree_leaves(1), 1U);
  EXPECT_EQ(expert_tree_leaves(16), 16U);
  EXPECT_EQ(expert_tree_leaves(48), 64U);
  EXPECT_EQ(expert_tree_leaves(64), 64U);
}

TEST(ExpertTreeTest, ShardsReturnTheMaximalNodesOfTheContractsExample) {
  const Row row({3, 9, 20, 21, 40, 63}, 64, 1);
  const auto low = row.merge(row.leaves_of({20, 3, 21, 9}), true);
  ASSERT_EQ(low.size(), 1U);
  EXPECT_EQ(low[0].node, 2U);
  const auto high = row.merge(row.leaves_of({63, 40}), true);
  ASSERT_EQ(high.size(), 1U);
  EXPECT_EQ(high[0].node, 3U);
  for (std::size_t i = 0; i < kHidden; ++i) {
    const auto l = [&](std::uint32_t e) { return row.leaf.at(e)[i]; };
    EXPECT_EQ(low[0].value[i],
              round_to_bf16(round_to_bf16(l(3) + l(9)) + round_to_bf16(l(20) + l(21))));
    EXPECT_EQ(high[0].value[i], round_to_bf16(l(40) + l(63)));
  }
}

TEST(ExpertTreeTest, AShardKeepsWhatItCannotFinishApart) {
  const Row row({0, 1, 2, 3}, 4, 2);
  const auto parts = row.merge(row.leaves_of({3, 0}), false);  // 1 and 2 are elsewhere
  ASSERT_EQ(parts.size(), 2U);
  EXPECT_EQ(parts[0].node, 4U);
  EXPECT_EQ(parts[1].node, 7U);
  EXPECT_TRUE(same_bits(parts[1].value, row.leaf.at(3)));
}

TEST(ExpertTreeTest, ASingleExpertIsTheRootUnchanged) {
  const Row row({5}, 16, 3);
  const auto parts = row.merge(row.leaves_of({5}), true);
  ASSERT_EQ(parts.size(), 1U);
  EXPECT_EQ(parts[0].node, 1U);
  EXPECT_TRUE(same_bits(parts[0].value, row.leaf.at(5)));
}

TEST(ExpertTreeTest, NothingMergesToNothing) {
  EXPECT_EQ(merge_tree({}, 0, 64, kHidden, Compute::kBf16), 0U);
}

TEST(ExpertTreeTest, TheRootDependsOnTheChoiceOnlyNotOnPlacementOrOrder) {
  std::mt19937 random(11);
  for (const std::size_t experts : {16UL, 48UL, 64UL})
    for (int trial = 0; trial < 100; ++trial) {
      std::vector<std::uint32_t> ids(experts);
      for (std::uint32_t e = 0; e < experts; ++e) ids[e] = e;
      std::shuffle(ids.begin(), ids.end(), random);
      ids.resize(1 + random() % 6);
      const Row row(ids, expert_tree_leaves(experts), static_cast<unsigned>(trial));
      for (const bool round : {false, true}) {
        const auto want = row.sum_below(1, round);
        for (int placement = 0; placement < 6; ++placement) {
          // Each chosen expert runs on one of up to five shards (one of its replicas).
          std::map<unsigned, std::vector<std::uint32_t>> shards;
          for (const auto e : ids) shards[random() % 5].push_back(e);
          std::vector<Row::Part> arrived;
          for (auto& [shard, held] : shards) {
            std::shuffle(held.begin(), held.end(), random);
            for (auto& part : row.merge(row.leaves_of(held), round)) arrived.push_back(part);
          }
          std::shuffle(arrived.begin(), arrived.end(), random);
          const auto root = row.merge(arrived, round);
          ASSERT_EQ(root.size(), 1U);
          EXPECT_EQ(root[0].node, 1U);
          ASSERT_TRUE(same_bits(root[0].value, want)) << experts << " experts, trial " << trial;
        }
      }
    }
}

}  // namespace
}  // namespace moesaic
