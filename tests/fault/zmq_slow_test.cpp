#include <poll.h>

#include <atomic>
#include <thread>

#include "tests/fault/relay.hpp"
#include "tests/fault/zmq_fault.hpp"

namespace moesaic::transport {
namespace {

class SlowPeerTest : public ZmqFaultTest, public testing::WithParamInterface<Wire> {
 protected:
  void SetUp() override { use(GetParam()); }
};

/// The listener hears heartbeats while its queue is full. (It once stopped reading then, heard none
/// and took the peer for dead after 600 ms.)
TEST_P(SlowPeerTest, WhoTakesFramesSlowlyAndWhoWaitsForItStayConnected) {
  auto listener = carrier();
  const auto bound = listener->listen(*parse_address(listen_text()));
  ASSERT_TRUE(bound) << bound.error().what;
  auto asker = carrier();
  const auto connection = asker->connect(*bound);
  ASSERT_TRUE(connection);
  ASSERT_TRUE(await(*asker, Kind::kOpened));

  std::atomic<bool> over = false;
  std::uint64_t sent = 0, refused = 0, taken = 0, lost = 0;
  std::jthread slow([&] {
    while (!over || taken < sent) {
      const auto event = listener->receive(Clock::now() + 100ms);
      if (!event) continue;
      if (event->kind == Kind::kClosed) ++lost;
      if (event->kind != Kind::kFrame) continue;
      ASSERT_EQ(event->frame.sequence, taken++);
      if (!over) std::this_thread::sleep_for(8ms);
    }
  });
  const auto end = Clock::now() + 4s;
  while (Clock::now() < end) {
    if (asker->send(*connection, numbered(sent, 100))) {
      ++sent;
      continue;
    }
    ++refused;
    const auto event = asker->receive(Clock::now() + 5ms);
    EXPECT_FALSE(event && event->kind == Kind::kClosed) << event->detail;
  }
  over = true;
  slow.join();
  EXPECT_EQ(lost, 0U);
  EXPECT_EQ(taken, sent);
  EXPECT_GT(refused, 100U) << "the queue was not full";
}

/// What only tcp knows: wires that are slow, and the time-out of the kernel.
class SlowTcpTest : public SlowPeerTest {};

/// A big frame over a slow wire takes many times the heartbeat timeout.
TEST_P(SlowTcpTest, ALongTransferIsNotTakenForADeadPeer) {
  auto listener = carrier();
  const auto bound = listener->listen(*parse_address(listen_text()));
  ASSERT_TRUE(bound) << bound.error().what;
  test::Relay relay(test::port_of(bound->place), /*bytes_per_second=*/2'000'000);
  auto asker = carrier();
  const auto through =
      *parse_address("tcp://127.0.0.1:" + std::to_string(relay.port()), bound->server_key);
  const auto connection = asker->connect(through);
  ASSERT_TRUE(connection) << connection.error().what;
  ASSERT_TRUE(await(*asker, Kind::kOpened));
  constexpr std::size_t kBytes = 6'000'000;
  const auto start = Clock::now();
  ASSERT_TRUE(asker->send(*connection, numbered(7, kBytes)));
  ASSERT_TRUE(await(*listener, Kind::kOpened));
  const auto event = listener->receive(Clock::now() + 20s);
  ASSERT_TRUE(event) << event.error().what;
  ASSERT_EQ(event->kind, Kind::kFrame) << event->detail;
  EXPECT_EQ(event->frame.tensors.at(0).elements(), static_cast<std::int64_t>(kBytes));
  EXPECT_GT(Clock::now() - start, 2s) << "the wire was not slow";
  EXPECT_FALSE(await(*asker, Kind::kClosed, 1ms));
}

/// Neither do data on their way hide that the peer stands still. (With data both ways heartbeats
/// cannot tell; the kernel can, for tcp.)
TEST_P(SlowTcpTest, APeerThatFreezesInTheMiddleOfATransferIsNoticedWithinASecond) {
  const auto peer = echo(listen_text());
  auto asker = carrier();
  const auto connection = asker->connect(address_);
  ASSERT_TRUE(connection);
  ASSERT_TRUE(await(*asker, Kind::kOpened));
  for (int i = 0; i < 3; ++i) {
    Frame frame;
    frame.tensors.emplace_back(DType::kU8, std::vector<std::int64_t>{100'000'000});
    ASSERT_TRUE(asker->send(*connection, std::move(frame)));
  }
  std::this_thread::sleep_for(50ms);
  const auto frozen = Clock::now();
  peer->signal(SIGSTOP);
  ASSERT_TRUE(await(*asker, Kind::kClosed));
  EXPECT_LT(Clock::now() - frozen, 1s);
}

INSTANTIATE_TEST_SUITE_P(EveryWire, SlowPeerTest,
                         testing::Values(Wire::kIpc, Wire::kTcp, Wire::kCurve), wire_name);
INSTANTIATE_TEST_SUITE_P(EveryTcp, SlowTcpTest, testing::Values(Wire::kTcp, Wire::kCurve),
                         wire_name);

}  // namespace
}  // namespace moesaic::transport
