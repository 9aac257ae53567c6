#include "common/engine/owner_choice.hpp"

#include <gtest/gtest.h>

#include <bit>

namespace moesaic {
namespace {

using cluster::ShardSet;

struct Chosen {
  std::vector<std::uint64_t> asked;  ///< [shards][rows]
  std::vector<std::uint64_t> homeless;
  std::vector<std::uint64_t> load;
};

Chosen choose(const std::vector<ShardSet>& owners, ShardSet usable,
              std::vector<std::uint64_t> wanted, std::size_t shards, std::uint32_t rotation = 0) {
  Chosen out;
  out.load.resize(shards);
  choose_owners(owners, usable, wanted, out.load, rotation, out.asked);
  out.homeless = wanted;
  return out;
}

TEST(OwnerChoiceTest, EachExpertGoesToItsOnlyOwner) {
  // Experts 0, 1 on shard 0; 2, 3 on shard 1.
  const auto c = choose({1, 1, 2, 2}, 3, {0b0111, 0b1000}, 2);
  EXPECT_EQ(c.asked, (std::vector<std::uint64_t>{0b0011, 0, 0b0100, 0b1000}));
  EXPECT_EQ(c.homeless, (std::vector<std::uint64_t>{0, 0}));
  EXPECT_EQ(c.load, (std::vector<std::uint64_t>{2, 2}));
}

TEST(OwnerChoiceTest, ARowStaysOnOneShardWhereItCan) {
  const std::vector<ShardSet> everywhere(8, 0b111);
  for (std::uint32_t rotation = 0; rotation < 5; ++rotation) {
    const auto c = choose(everywhere, 0b111, {0b10110101}, 3, rotation);
    int shards = 0;
    for (const auto mask : c.asked) shards += mask != 0 ? 1 : 0;
    EXPECT_EQ(shards, 1) << rotation;
  }
}

TEST(OwnerChoiceTest, ReplicasShareTheRows) {
  const std::vector<ShardSet> both(4, 0b11);
  const auto c = choose(both, 0b11, std::vector<std::uint64_t>(10, 0b0011), 2);
  EXPECT_EQ(c.load, (std::vector<std::uint64_t>{10, 10}));
}

TEST(OwnerChoiceTest, SingleRowsMoveFromShardToShardWithTheRotation) {
  const std::vector<ShardSet> both(4, 0b11);
  EXPECT_NE(choose(both, 0b11, {1}, 2, 0).asked, choose(both, 0b11, {1}, 2, 1).asked);
}

// Rotation once advanced by the layers of a step: with an even number of them one replica did it
// all.
TEST(OwnerChoiceTest, ReplicasShareSingleRowsWhateverTheStride) {
  const std::vector<cluster::ShardSet> owners = {0b0011, 0b1100};
  for (const std::uint32_t stride : {1U, 2U, 4U, 5U, 27U, 28U}) {
    std::vector<int> asked(4, 0);
    for (std::uint32_t step = 0; step < 1000; ++step) {
      const auto c = choose(owners, 0b1111, {0b11}, 4, step * stride);
      for (std::size_t shard = 0; shard < 4; ++shard) asked[shard] += c.asked[shard] != 0 ? 1 : 0;
    }
    for (const auto times : asked) EXPECT_NEAR(times, 500, 100) << stride;
  }
}

TEST(OwnerChoiceTest, AReplicaIsAskedOnAShardTheRowVisitsAnyway) {
  // Expert 0 on shards 0 and 1, expert 1 on shard 1 alone.
  const auto c = choose({0b11, 0b10}, 0b11, {0b11}, 2);
  EXPECT_EQ(c.asked, (std::vector<std::uint64_t>{0, 0b11}));
}

TEST(OwnerChoiceTest, WhatNobodyUsableOwnsStaysWanted) {
  const auto c = choose({0b01, 0b10, 0b11, 0}, 0b10, {0b1111}, 2);
  EXPECT_EQ(c.asked, (std::vector<std::uint64_t>{0, 0b0110}));
  EXPECT_EQ(c.homeless, (std::vector<std::uint64_t>{0b1001}));
}

TEST(OwnerChoiceTest, EveryChosenExpertIsAskedOfExactlyOneOwner) {
  // Deterministic pseudo-random placements of 64 experts on 7 shards with 1 to 3 replicas.
  std::uint64_t state = 1;
  const auto next = [&] { return state = state * 6364136223846793005U + 1442695040888963407U; };
  for (int round = 0; round < 50; ++round) {
    std::vector<ShardSet> owners(64);
    for (auto& set : owners)
      for (int i = 0; i < 1 + static_cast<int>(next() >> 60) % 3; ++i)
        set |= ShardSet{1} << (next() >> 33) % 7;
    std::vector<std::uint64_t> wanted(9);
    for (auto& mask : wanted)
      for (int i = 0; i < 6; ++i) mask |= std::uint64_t{1} << (next() >> 33) % 64;
    const auto c = choose(owners, 0x7f, wanted, 7, static_cast<std::uint32_t>(round));
    for (std::size_t row = 0; row < wanted.size(); ++row) {
      std::uint64_t all = 0;
      int count = 0;
      for (std::size_t shard = 0; shard < 7; ++shard) {
        const auto mask = c.asked[shard * wanted.size() + row];
        all |= mask;
        count += std::popcount(mask);
        for (auto rest = mask; rest != 0; rest &= rest - 1)
          EXPECT_TRUE(owners[static_cast<std::size_t>(std::countr_zero(rest))] >> shard & 1U);
      }
      EXPECT_EQ(all, wanted[row]);
      EXPECT_EQ(count, std::popcount(wanted[row]));
    }
  }
}

TEST(OwnerChoiceTest, NamesTheShardsThatAreMissed) {
  cluster::PlacementTable table;
  EXPECT_EQ(missing_shards(table, 0), "there is no placement yet");
  table.epoch = 1;
  table.shards = {"a", "b", "c"};
  table.layers = 2;
  table.experts = {2, 0};
  table.owners = {0, 0, 0b011, 0b100};  // layer 0 is dense
  EXPECT_EQ(missing_shards(table, 0b101), "");
  EXPECT_EQ(missing_shards(table, 0b001), "c");
  EXPECT_EQ(missing_shards(table, 0), "a, b, c");
}

}  // namespace
}  // namespace moesaic
