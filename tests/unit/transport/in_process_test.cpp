#include <gtest/gtest.h>

#include <thread>

#include "common/transport/exchange.hpp"

namespace moesaic::transport {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

Frame numbered(std::uint64_t request) {
  Frame frame;
  frame.sequence = request;
  return frame;
}

TEST(InProcessLinkTest, AnswersComeBackWithTheirPeerAndNumber) {
  auto link = make_in_process_link(3);
  ASSERT_EQ(link.asking->peers(), 3U);
  std::vector<std::jthread> services;
  for (const auto& end : link.answering)
    services.emplace_back([end] {
      for (auto frame = end->next(); frame; frame = end->next()) {
        frame->layer = 9;
        end->answer(std::move(*frame));
      }
    });
  for (std::size_t peer = 0; peer < 3; ++peer)
    ASSERT_TRUE(link.asking->send(peer, numbered(10 + peer)));
  std::size_t seen = 0;
  for (int i = 0; i < 3; ++i) {
    const auto got = link.asking->receive(steady_clock::now() + seconds(10));
    ASSERT_TRUE(got);
    EXPECT_EQ(got->frame.sequence, 10 + got->peer);
    EXPECT_EQ(got->frame.layer, 9U);
    seen |= std::size_t{1} << got->peer;
  }
  EXPECT_EQ(seen, 7U);
  link.asking.reset();  // ends the service threads
}

TEST(InProcessLinkTest, AFullQueueRefusesAtOnce) {
  auto link = make_in_process_link(1, 2);
  EXPECT_TRUE(link.asking->send(0, numbered(1)));
  EXPECT_TRUE(link.asking->send(0, numbered(2)));
  const auto third = link.asking->send(0, numbered(3));
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().code, Errc::kOverloaded);
}

TEST(InProcessLinkTest, ReceiveEndsAtItsDeadline) {
  auto link = make_in_process_link(1);
  const auto got = link.asking->receive(steady_clock::now() + milliseconds(20));
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, Errc::kDeadlineExceeded);
}

TEST(InProcessLinkTest, AClosedPeerIsToldApartFromASlowOne) {
  auto link = make_in_process_link(1);
  link.answering[0]->close();
  EXPECT_FALSE(link.answering[0]->next());
  const auto sent = link.asking->send(0, numbered(1));
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, Errc::kUnavailable);
}

}  // namespace
}  // namespace moesaic::transport
