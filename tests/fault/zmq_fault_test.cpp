#include "tests/fault/zmq_fault.hpp"

namespace moesaic::transport {
namespace {

class PeerDeathTest : public ZmqFaultTest, public testing::WithParamInterface<Wire> {
 protected:
  void SetUp() override { use(GetParam()); }
};

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

TEST_P(PeerDeathTest, AKilledListenerIsNoticedAtOnceAndItsReturnToo) {
  auto peer = echo(listen_text());
  auto asker = carrier();
  const auto connection = asker->connect(address_);
  ASSERT_TRUE(connection);
  ASSERT_TRUE(await(*asker, Kind::kOpened));
  ASSERT_TRUE(answered(*asker, *connection, 0, 20));
  for (int round = 0; round < 3; ++round) {
    const auto killed = Clock::now();
    peer->signal(SIGKILL);
    ASSERT_TRUE(await(*asker, Kind::kClosed));
    EXPECT_LT(milliseconds_since(killed), 50);
    EXPECT_EQ(asker->send(*connection, numbered(1)).error().code, Errc::kUnavailable);
    peer->end();
    peer = echo(to_string(address_));
    ASSERT_TRUE(await(*asker, Kind::kOpened));
    EXPECT_TRUE(answered(*asker, *connection, 20, 25));
  }
}

TEST_P(PeerDeathTest, AFrozenListenerIsNoticedWithinASecond) {
  const auto peer = echo(listen_text());
  auto asker = carrier();
  ASSERT_TRUE(asker->connect(address_));
  ASSERT_TRUE(await(*asker, Kind::kOpened));
  const auto frozen = Clock::now();
  peer->signal(SIGSTOP);
  ASSERT_TRUE(await(*asker, Kind::kClosed));
  EXPECT_LT(milliseconds_since(frozen), 1000);
  EXPECT_FALSE(await(*asker, Kind::kOpened, 300ms));  // its kernel accepts, it does not
  peer->signal(SIGCONT);
  EXPECT_TRUE(await(*asker, Kind::kOpened));
}

TEST_P(PeerDeathTest, NothingOfAFormerConnectionArrivesOnTheNext) {
  const auto peer = echo(listen_text());
  auto asker = carrier();
  const auto connection = asker->connect(address_);
  ASSERT_TRUE(connection);
  ASSERT_TRUE(await(*asker, Kind::kOpened));
  peer->signal(SIGSTOP);
  // Few enough for the buffers of a socket: heartbeats do not pass frames that wait for a frozen
  // peer.
  for (std::uint64_t i = 0; i < 5; ++i) static_cast<void>(asker->send(*connection, numbered(i)));
  ASSERT_TRUE(await(*asker, Kind::kClosed));
  peer->signal(SIGCONT);
  ASSERT_TRUE(await(*asker, Kind::kOpened));
  EXPECT_TRUE(answered(*asker, *connection, 100, 110));
}

TEST_P(PeerDeathTest, AKilledConnectorIsNoticedAtOnce) {
  auto listener = carrier();
  const auto bound = listener->listen(*parse_address(listen_text()));
  ASSERT_TRUE(bound) << bound.error().what;
  for (int round = 0; round < 5; ++round) {
    PeerProcess peer(
        with_keys({"ask", to_string(*bound), bound->server_key.empty() ? "-" : bound->server_key}));
    const auto opened = await(*listener, Kind::kOpened);
    ASSERT_TRUE(opened);
    EXPECT_EQ(opened->key_owner, wire_ == Wire::kCurve ? "expert-shard/s" : "");
    ASSERT_TRUE(await(*listener, Kind::kFrame));
    const auto killed = Clock::now();
    peer.signal(SIGKILL);
    const auto closed = await(*listener, Kind::kClosed);
    ASSERT_TRUE(closed);
    EXPECT_LT(milliseconds_since(killed), 50);
    EXPECT_EQ(closed->connection, opened->connection);
    EXPECT_EQ(listener->send(opened->connection, numbered(1)).error().code, Errc::kUnavailable);
  }
}

TEST_P(PeerDeathTest, AFrozenConnectorIsNoticedWithinASecondAndLearnsItLater) {
  auto listener = carrier();
  const auto bound = listener->listen(*parse_address(listen_text()));
  ASSERT_TRUE(bound) << bound.error().what;
  PeerProcess peer(
      with_keys({"ask", to_string(*bound), bound->server_key.empty() ? "-" : bound->server_key}));
  const auto opened = await(*listener, Kind::kOpened);
  ASSERT_TRUE(opened);
  EXPECT_EQ(peer.line(), "opened");
  const auto frozen = Clock::now();
  peer.signal(SIGSTOP);
  ASSERT_TRUE(await(*listener, Kind::kClosed));
  EXPECT_LT(milliseconds_since(frozen), 1000);
  peer.signal(SIGCONT);
  EXPECT_EQ(peer.line(), "closed");
  EXPECT_EQ(peer.line(), "opened");
  const auto again = await(*listener, Kind::kOpened);
  ASSERT_TRUE(again);
  EXPECT_NE(again->connection, opened->connection);
}

INSTANTIATE_TEST_SUITE_P(EveryWire, PeerDeathTest,
                         testing::Values(Wire::kIpc, Wire::kTcp, Wire::kCurve), wire_name);

}  // namespace
}  // namespace moesaic::transport
