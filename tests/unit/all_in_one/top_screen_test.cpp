#include "services/all_in_one/top_screen.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/cluster/view_json.hpp"

namespace moesaic {
namespace {

using testing::HasSubstr;
using testing::Not;

cluster::View small_view(std::uint64_t rows) {
  cluster::View view;
  view.term = 3;
  view.leader = "router-0";
  view.missing = "vision-encoder";
  auto& shard = view.members.emplace_back();
  shard.member.role = "expert-shard";
  shard.member.name = "s0";
  shard.member.admin = "http://10.0.0.1:8083";
  shard.member.labels = {{"node", "b"}};
  shard.alive = shard.load.ready = true;
  shard.load.rows = rows;
  shard.load.resident_bytes = 3U << 20;
  auto& decoder = view.members.emplace_back();
  decoder.member.role = "decoder";
  decoder.member.name = "d0";
  decoder.member.admin = "http://10.0.0.2:8084";
  decoder.load.kv_blocks_total = 200;
  decoder.load.kv_blocks_free = 50;
  view.placement.epoch = 4;
  view.placement.shards = {"s0"};
  view.placement.layers = 2;
  view.placement.experts = {4, 0};
  view.placement.owners = {0, 0, 0, 0, 1, 1, 0, 1};
  return view;
}

TEST(TopScreenTest, ShowsMembersShardsAndRates) {
  ClusterMoment before, now;
  before.seconds = 10;
  before.view = cluster::to_json(small_view(100));
  before.metrics["expert-shard/s0"] = parse_metrics(
      "moesaic_wire_bytes_total{from=\"a\",to=\"b\",kind=\"activations\",crypto=\"curve\"} 1024\n"
      "moesaic_wire_messages_total{from=\"a\",to=\"b\",kind=\"activations\",crypto=\"curve\"} "
      "10\n");
  now.seconds = 12;
  now.view = cluster::to_json(small_view(150));
  now.metrics["expert-shard/s0"] = parse_metrics(
      "moesaic_wire_bytes_total{from=\"a\",to=\"b\",kind=\"activations\",crypto=\"curve\"} 5120\n"
      "moesaic_wire_messages_total{from=\"a\",to=\"b\",kind=\"activations\",crypto=\"curve\"} 40\n"
      "moesaic_wire_bytes_total{from=\"a\",to=\"c\",kind=\"control\",crypto=\"none\"} 1\n");
  const auto screen = top_screen(before, now);
  ASSERT_TRUE(screen) << screen.error().what;
  EXPECT_THAT(*screen,
              HasSubstr("leader router-0, term 3, placement 4, not ready: vision-encoder"));
  EXPECT_THAT(*screen, testing::ContainsRegex("expert-shard +s0 +b +ready"));
  EXPECT_THAT(*screen, testing::ContainsRegex("decoder +d0 +- +lost +0 +0 +25 %"));
  EXPECT_THAT(*screen, testing::ContainsRegex("s0 +ready +3 +25.0 +3.00 MiB  text 0-1,3 of 1\n"));
  EXPECT_THAT(*screen, testing::ContainsRegex("a +b +activations +curve +15.0 +2.00 KiB/s\n"));
  EXPECT_THAT(*screen, Not(HasSubstr("control"))) << "no rate without an earlier number";
}

TEST(TopScreenTest, OnlyWhoIsAliveIsAsked) {
  const auto urls = admin_urls(cluster::to_json(small_view(1)));
  ASSERT_TRUE(urls);
  EXPECT_EQ(*urls,
            (std::map<std::string, std::string>{{"expert-shard/s0", "http://10.0.0.1:8083"}}));
}

TEST(TopScreenTest, WhatIsNoViewIsAnError) {
  for (const auto* text : {"", "[]", "{}", "{\"members\": 3}"}) {
    const auto urls = admin_urls(text);
    ASSERT_FALSE(urls) << text;
    EXPECT_EQ(urls.error().code, Errc::kCorrupt);
  }
}

TEST(MetricsTextTest, ReadsSamplesAndLeavesOutTheRest) {
  const auto samples = parse_metrics(
      "# HELP a b\n# TYPE a counter\na 1\nb{x=\"1,}\\\"2\",y=\"\"} 2.5e3 "
      "1700000000\n\nbroken{x=\nno "
      "value\nc +Inf");
  ASSERT_EQ(samples.size(), 3U);
  EXPECT_EQ(samples[0].name, "a");
  EXPECT_EQ(samples[1].labels, (std::map<std::string, std::string>{{"x", "1,}\"2"}, {"y", ""}}));
  EXPECT_EQ(samples[1].value, 2500);
  EXPECT_EQ(samples[2].name, "c");
}

}  // namespace
}  // namespace moesaic
