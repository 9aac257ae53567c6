#include "common/cluster/placement_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/cluster/placement_resolve.hpp"
#include "tests/unit/cluster/simulated_cluster.hpp"

namespace moesaic::cluster {
namespace {

Member shard(const std::string& name, std::map<std::string, std::string> labels = {},
             std::uint64_t capacity = 0) {
  Member member;
  member.role = "expert-shard";
  member.name = name;
  member.labels = std::move(labels);
  member.capacity_bytes = capacity;
  return member;
}

std::vector<Member> four_shards() {
  return {shard("s3", {{"node", "b"}, {"tier", "slow"}}), shard("s1", {{"node", "a"}}),
          shard("s0", {{"node", "a"}, {"tier", "fast"}, {"memory_gib", "16"}}),
          shard("s2", {{"node", "b"}, {"tier", "fast"}, {"memory_gib", "64"}})};
}

/// The table, or the text of what is wrong with the file or its match with the shards.
Result<PlacementTable> placed(const std::string& yaml, const std::vector<Member>& shards) {
  MOESAIC_TRY(const auto file, parse_placement(yaml, "p.yaml"));
  return resolve_placement(file, test::small_geometry(), shards);
}

TEST(PlacementFileTest, ReadsWhatTheDocumentationShows) {
  const auto file = parse_placement(
      "epoch: 7\n"
      "shards:\n"
      "  - match: {node: a}                  # labels\n"
      "    experts: [{layers: \"1-27\", modality: text, experts: \"0-31\"}]\n"
      "  - match: {tier: fast}\n"
      "    replicas: 2\n"
      "    experts: [{layers: \"1-3, 5\", modality: text, experts: \"32-63\"}, {modality: "
      "vision}]\n",
      "p.yaml");
  ASSERT_TRUE(file) << file.error().what;
  EXPECT_EQ(file->epoch, 7U);
  ASSERT_EQ(file->shards.size(), 2U);
  EXPECT_EQ(file->shards[0].match, (std::map<std::string, std::string>{{"node", "a"}}));
  EXPECT_EQ(file->shards[0].replicas, 1U);
  EXPECT_EQ(file->shards[1].replicas, 2U);
  EXPECT_EQ(file->shards[1].experts[0].layers, (PlacementFile::Ranges{{1, 3}, {5, 5}}));
  EXPECT_EQ(file->shards[1].experts[1].pools, std::vector<std::size_t>{1});
  EXPECT_TRUE(file->shards[1].experts[1].experts.empty()) << "all, unless said";
  EXPECT_EQ(file->shards_needed(), 3U);
}

struct BadFile {
  const char* yaml;
  const char* text;
};

TEST(PlacementFileTest, AFileThatIsWrongSaysWhereAndWhat) {
  const std::vector<BadFile> cases = {
      {"", "p.yaml:1: expected a placement as a mapping of keys"},
      {"- a\n", "p.yaml:1: expected a placement as a mapping of keys"},
      {"epoch: 1\n", "p.yaml:1: shards: expected a list of entries"},
      {"epoch: x\nshards: []\n", "p.yaml:1: epoch \"x\": expected a whole number of 1 to 65535"},
      {"shards: []\n", "p.yaml:1: shards: expected a list of entries"},
      {"epoch: 1\nshard: []\n", "p.yaml:2: unknown key \"shard\", did you mean \"shards\"?"},
      {"epoch: 1\nepoch: 2\n", "p.yaml:2: \"epoch\" is given twice"},
      {"shards:\n  - experts: [{}]\n", "p.yaml:2: match is missing: {label: value, ...}"},
      {"shards:\n  - match: {}\n    experts: [{}]\n", "p.yaml:2: match is empty"},
      {"shards:\n  - match: {node: [a]}\n    experts: [{}]\n",
       "p.yaml:2: match: node must be one value"},
      {"shards:\n  - match: {node: a}\n    replica: 2\n    experts: [{}]\n",
       "p.yaml:3: unknown key \"replica\", did you mean \"replicas\"?"},
      {"shards:\n  - match: {node: a}\n    replicas: 0\n    experts: [{}]\n",
       "p.yaml:3: replicas \"0\": expected a whole number of 1 to 65535"},
      {"shards:\n  - match: {node: a}\n    replicas: 65\n    experts: [{}]\n",
       "p.yaml:3: replicas 65: at most 64"},
      {"shards:\n  - match: {node: a}\n",
       "p.yaml:2: experts: expected a list of {layers, modality, experts}"},
      {"shards:\n  - match: {node: a}\n    experts: [{layer: 1}]\n",
       "p.yaml:3: unknown key \"layer\", did you mean \"layers\"?"},
      {"shards:\n  - match: {node: a}\n    experts: [{modality: audio}]\n",
       "p.yaml:3: modality \"audio\": expected one of text, vision, all"},
      {"shards:\n  - match: {node: a}\n    experts: [{experts: \"3-1\"}]\n",
       "p.yaml:3: experts \"3-1\": expected numbers and ranges such as \"0-31,40\", or \"all\""},
      {"shards:\n  - match: {node: a}\n    experts: [{experts: \"1,,2\"}]\n",
       "p.yaml:3: experts \"\": expected numbers and ranges such as \"0-31,40\", or \"all\""},
      {"shards:\n  - match: {node: a}\n    experts: [{layers: \"0-99999\"}]\n",
       "p.yaml:3: layers \"0-99999\": expected numbers and ranges such as \"0-31,40\", or \"all\""},
      {"shards: &x\n  - match: *x\n", "p.yaml:2: aliases (*name) are not allowed"},
      {"shards: [[[[[[[[[1]]]]]]]]]\n", "p.yaml:1: nested deeper than 8 levels"},
      {"epoch: 1\n---\nepoch: 2\n", "p.yaml:2: a second document (---)"},
      {"shards: [\n", "p.yaml:2: not YAML: end of sequence flow not found"},
  };
  for (const auto& bad : cases) {
    const auto file = parse_placement(bad.yaml, "p.yaml");
    ASSERT_FALSE(file) << bad.yaml;
    EXPECT_EQ(file.error().what, bad.text) << bad.yaml;
  }
}

TEST(PlacementFileTest, AHugeFileIsRefusedBeforeItIsRead) {
  const auto file = parse_placement(std::string(2 << 20, ' '), "p.yaml");
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().what, "p.yaml: 2097152 bytes, at most 1048576");
  std::string many = "shards: [";
  for (int i = 0; i < 30'000; ++i) many += "1,";
  const auto values = parse_placement(many + "1]", "p.yaml");
  ASSERT_FALSE(values);
  EXPECT_EQ(values.error().what, "p.yaml:1: more than 20000 values");
}

constexpr const char* kAll = "    experts: [{}]\n";

TEST(PlacementResolveTest, ReplicasGoToSoManyMatchingShardsInOrderOfNames) {
  const auto table =
      placed(std::string("shards:\n  - match: {node: a}\n    replicas: 2\n") + kAll, four_shards());
  ASSERT_TRUE(table) << table.error().what;
  EXPECT_EQ(table->shards, (std::vector<std::string>{"s0", "s1"}));
  EXPECT_EQ(table->at(1, 0, 0), 3U);
  EXPECT_EQ(table->at(3, 1, 3), 3U);
  EXPECT_EQ(table->at(0, 0, 0), 0U) << "layer 0 is dense";
}

TEST(PlacementResolveTest, EntriesThatMatchTheSameShardsTakeThemInOrder) {
  const auto table = placed(
      "shards:\n"
      "  - match: {tier: fast}\n    experts: [{modality: text}]\n"
      "  - match: {tier: fast}\n    experts: [{modality: vision}]\n",
      four_shards());
  ASSERT_TRUE(table) << table.error().what;
  EXPECT_EQ(table->shards, (std::vector<std::string>{"s0", "s2"}));
  EXPECT_EQ(table->at(1, 0, 0), 1U);
  EXPECT_EQ(table->at(1, 1, 0), 2U);
}

TEST(PlacementResolveTest, AnEntryMovesToAnotherShardSoThatAllFind) {
  // Taken in order, {node: a} would take s0, which alone is fast on node a.
  const auto table = placed(
      "shards:\n"
      "  - match: {node: a}\n    experts: [{modality: text}]\n"
      "  - match: {node: a, tier: fast}\n    experts: [{modality: vision}]\n",
      four_shards());
  ASSERT_TRUE(table) << table.error().what;
  EXPECT_EQ(table->at(1, 0, 0), 2U) << "text on s1";
  EXPECT_EQ(table->at(1, 1, 0), 1U) << "vision on s0";
}

TEST(PlacementResolveTest, NumbersMayBeComparedAndEntriesByNameAdd) {
  const auto table = placed(
      "shards:\n"
      "  - match: {memory_gib: \">=32\"}\n    experts: [{modality: text, experts: \"0-6\"}]\n"
      "  - match: {name: s3}\n    experts: [{modality: text, experts: \"7\"}]\n"
      "  - match: {name: s3, node: b}\n    experts: [{modality: vision}]\n",
      four_shards());
  ASSERT_TRUE(table) << table.error().what;
  EXPECT_EQ(table->shards, (std::vector<std::string>{"s2", "s3"}));
  EXPECT_EQ(table->at(2, 0, 6), 1U);
  EXPECT_EQ(table->at(2, 0, 7), 2U);
  EXPECT_EQ(table->at(2, 1, 0), 2U);
}

TEST(PlacementResolveTest, ABadPlacementIsOneLineWithNamesAndNumbers) {
  const std::vector<BadFile> cases = {
      {"shards:\n  - match: {node: a}\n    experts: [{experts: \"0-5\", modality: text}, "
       "{modality: "
       "vision}]\n",
       "p.yaml: no shard holds layers 1-3 text experts 6-7"},
      {"shards:\n  - match: {node: a}\n    experts: [{layers: \"1,3\"}, {layers: \"2\", experts: "
       "\"0-2\"}]\n",
       "p.yaml: no shard holds layer 2 text experts 3-7; layer 2 vision expert 3"},
      {"shards:\n  - match: {node: a}\n    experts: [{layers: \"1-4\"}]\n",
       "p.yaml:3: layer 4: the model has layers 0-3"},
      {"shards:\n  - match: {node: a}\n    experts: [{layers: \"0-3\"}]\n",
       "p.yaml:3: layer 0 is dense: it has no experts"},
      {"shards:\n  - match: {node: a}\n    experts: [{modality: vision, experts: \"2-7\"}]\n",
       "p.yaml:3: expert 4: the model has vision experts 0-3"},
      {"shards:\n  - match: {node: a}\n    experts:\n      - {}\n      - {layers: \"2\", modality: "
       "text, experts: \"1,5\"}\n",
       "p.yaml:5: layer 2 text experts 1,5: given twice to the same shard, also in line 4"},
      {"shards:\n  - match: {name: s0}\n    experts: [{}]\n  - match: {name: s0}\n    experts: "
       "[{layers: \"3\", modality: text, experts: \"0\"}]\n",
       "p.yaml:5: layer 3 text expert 0: given twice to the same shard, also in line 3"},
      {"shards:\n  - match: {name: s0}\n    replicas: 2\n    experts: [{}]\n",
       "p.yaml:2: replicas 2 of one shard, \"s0\""},
      {"shards:\n  - match: {node: c}\n    experts: [{}]\n",
       "p.yaml:2: 1 shard with {node: c} needed, 0 match; registered: s0 {memory_gib: 16, node: a, "
       "tier: fast}, s1 {node: a}, s2 {memory_gib: 64, node: b, tier: fast}, s3 {node: b, tier: "
       "slow}"},
      {"shards:\n  - match: {name: s0}\n    experts: [{}]\n  - match: {tier: fast}\n    replicas: "
       "2\n    experts: [{}]\n",
       "p.yaml:4: 2 shards with {tier: fast} needed, 2 match but other entries need them; "
       "registered: s0 {memory_gib: 16, node: a, tier: fast}, s1 {node: a}, s2 {memory_gib: 64, "
       "node: b, tier: fast}, s3 {node: b, tier: slow}"},
  };
  for (const auto& bad : cases) {
    const auto table = placed(bad.yaml, four_shards());
    ASSERT_FALSE(table) << bad.yaml;
    EXPECT_EQ(table.error().what, bad.text) << bad.yaml;
  }
}

TEST(PlacementResolveTest, AShardThatIsTooSmallIsNamedWithBothSizes) {
  const auto table =
      placed(std::string("shards:\n  - match: {name: s0}\n") + kAll, {shard("s0", {}, 29'999)});
  ASSERT_FALSE(table);
  EXPECT_EQ(table.error().code, Errc::kTooLarge);
  EXPECT_EQ(table.error().what,
            "p.yaml: shard \"s0\" would hold 29.30 KiB (30000 bytes) of experts, its capacity is "
            "29.30 KiB (29999)");
  EXPECT_TRUE(
      placed(std::string("shards:\n  - match: {name: s0}\n") + kAll, {shard("s0", {}, 30'000)}));
}

TEST(PlacementResolveTest, MoreThanSixtyFourShardsAreTooMany) {
  std::vector<Member> shards;
  for (int i = 0; i < 66; ++i)
    shards.push_back(shard("s" + std::to_string(100 + i), {{"half", i < 33 ? "a" : "b"}}));
  const auto table = placed(std::string("shards:\n  - match: {half: a}\n    replicas: 33\n") +
                                kAll + "  - match: {half: b}\n    replicas: 33\n" + kAll,
                            shards);
  ASSERT_FALSE(table);
  EXPECT_EQ(table.error().what, "p.yaml: 66 shards hold experts, at most 64");
}

TEST(PlacementResolveTest, WithoutAFileAllShardsShareInOrderOfNames) {
  const auto table = default_placement(test::small_geometry(), four_shards());
  ASSERT_TRUE(table) << table.error().what;
  EXPECT_EQ(table->shards, (std::vector<std::string>{"s0", "s1", "s2", "s3"}));
  EXPECT_EQ(table->at(1, 0, 1), 1U);
  EXPECT_EQ(table->at(1, 0, 2), 2U);
  EXPECT_EQ(table->at(1, 1, 3), 8U);
  EXPECT_EQ(placed_bytes(*table, test::small_geometry(), 2), 3 * (2 * 1000 + 500));
  EXPECT_EQ(default_placement(test::small_geometry(), {}).error().what,
            "even ranges: no shard is registered");
}

}  // namespace
}  // namespace moesaic::cluster
