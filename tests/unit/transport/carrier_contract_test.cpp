#include "carrier_contract.hpp"

#include <atomic>
#include <cstring>
#include <map>
#include <set>
#include <thread>

#include "common/transport/wire.hpp"

namespace moesaic::transport {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using Kind = CarrierEvent::Kind;

Frame numbered(std::uint64_t sequence) {
  Frame frame;
  frame.sequence = sequence;
  return frame;
}

/// A frame with one tensor of bytes that depend on their place and `seed`.
Frame filled(std::size_t bytes, std::uint32_t seed) {
  auto frame = numbered(seed);
  frame.tensors.emplace_back(DType::kU8,
                             std::vector<std::int64_t>{static_cast<std::int64_t>(bytes)});
  auto at = frame.tensors[0].as<std::uint8_t>();
  std::uint32_t state = seed;
  for (auto& byte : at) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<std::uint8_t>(state >> 24);
  }
  return frame;
}

bool same_tensors(const Frame& a, const Frame& b) {
  if (a.tensors.size() != b.tensors.size()) return false;
  for (std::size_t i = 0; i < a.tensors.size(); ++i) {
    const auto &x = a.tensors[i], &y = b.tensors[i];
    if (x.dtype != y.dtype || x.shape != y.shape ||
        (x.elements() > 0 &&
         std::memcmp(x.bytes.data(), y.bytes.data(), x.elements() * dtype_bytes(x.dtype)) != 0))
      return false;
  }
  return true;
}

/// Sends every frame back until told to stop.
class EchoThread {
 public:
  explicit EchoThread(std::unique_ptr<Carrier> carrier)
      : carrier_(std::move(carrier)), thread_([this] { run(); }) {}
  ~EchoThread() {
    carrier_->wake();
    thread_.join();
  }

 private:
  void run() {
    for (;;) {
      auto event = carrier_->receive(steady_clock::now() + seconds(60));
      if (!event || event->kind == Kind::kWoken) return;
      if (event->kind != Kind::kFrame) continue;
      EXPECT_TRUE(carrier_->send(event->connection, std::move(event->frame)));
    }
  }

  std::unique_ptr<Carrier> carrier_;
  std::thread thread_;
};

/// A listener and a connector, open on both sides.
struct Pair {
  std::unique_ptr<Carrier> listener, connector;
  Address address;
  ConnectionId accepted = 0, made = 0;
};
Pair make_pair(CarrierWorld& world, CarrierLimits limits = {}) {
  Pair pair;
  pair.listener = world.make(limits);
  pair.connector = world.make(limits);
  auto address = pair.listener->listen(world.address());
  EXPECT_TRUE(address) << address.error().what;
  pair.address = *address;
  pair.made = *pair.connector->connect(pair.address);
  const auto opened = next_event(*pair.connector);
  EXPECT_EQ(opened.kind, Kind::kOpened);
  EXPECT_EQ(opened.connection, pair.made);
  EXPECT_FALSE(opened.accepted);
  const auto accepted = next_event(*pair.listener);
  EXPECT_EQ(accepted.kind, Kind::kOpened);
  EXPECT_TRUE(accepted.accepted);
  pair.accepted = accepted.connection;
  return pair;
}

TEST_P(CarrierContractTest, FramesArriveInOrderBothWays) {
  auto pair = make_pair(*world_);
  for (std::uint64_t first = 0; first < 2000; first += 100) {
    for (std::uint64_t i = first; i < first + 100; ++i) {
      ASSERT_TRUE(pair.connector->send(pair.made, filled(i % 7 * 300, static_cast<unsigned>(i))));
      ASSERT_TRUE(pair.listener->send(pair.accepted, numbered(i + 5000)));
    }
    for (std::uint64_t i = first; i < first + 100; ++i) {
      const auto asked = next_event(*pair.listener);
      ASSERT_EQ(asked.kind, Kind::kFrame);
      ASSERT_EQ(asked.connection, pair.accepted);
      ASSERT_EQ(asked.frame.sequence, i);
      ASSERT_TRUE(same_tensors(asked.frame, filled(i % 7 * 300, static_cast<unsigned>(i))));
      const auto told = next_event(*pair.connector);
      ASSERT_EQ(told.frame.sequence, i + 5000);
    }
  }
}

TEST_P(CarrierContractTest, EveryFieldOfAFrameArrives) {
  auto pair = make_pair(*world_);
  Frame frame = filled(77, 3);
  frame.type = FrameType::kMoeSums;
  frame.code = 9;
  frame.epoch = 0x01020304;
  frame.sender = 0xfedcba9876543210;
  frame.incarnation = 77;
  frame.attempt = 65535;
  frame.request = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  frame.sequence = ~std::uint64_t{0};
  frame.budget_us = 123456;
  frame.layer = 27;
  frame.modality = 1;
  frame.trace = {{1, 2, 3}, {4, 5}, true};
  ASSERT_TRUE(pair.connector->send(pair.made, std::move(frame)));
  const auto got = next_event(*pair.listener).frame;
  EXPECT_EQ(got.type, FrameType::kMoeSums);
  EXPECT_EQ(got.code, 9);
  EXPECT_EQ(got.epoch, 0x01020304U);
  EXPECT_EQ(got.sender, 0xfedcba9876543210U);
  EXPECT_EQ(got.incarnation, 77U);
  EXPECT_EQ(got.attempt, 65535);
  EXPECT_EQ(got.request[15], 16);
  EXPECT_EQ(got.sequence, ~std::uint64_t{0});
  EXPECT_EQ(got.budget_us, 123456U);
  EXPECT_EQ(got.layer, 27);
  EXPECT_EQ(got.modality, 1);
  EXPECT_EQ(got.trace, (TraceContext{{1, 2, 3}, {4, 5}, true}));
  EXPECT_TRUE(same_tensors(got, filled(77, 3)));
}

TEST_P(CarrierContractTest, FramesOf64MiBArriveWhole) {
  auto listener = world_->make();
  const auto address = *listener->listen(world_->address());
  const EchoThread echo(std::move(listener));
  auto connector = world_->make();
  const auto id = *connector->connect(address);
  ASSERT_EQ(next_event(*connector).kind, Kind::kOpened);
  const std::size_t bytes = (std::size_t{64} << 20) + 7;
  ASSERT_TRUE(connector->send(id, filled(bytes, 1)));
  ASSERT_TRUE(connector->send(id, filled(10, 2)));
  ASSERT_TRUE(connector->send(id, filled(5 << 20, 3)));
  const auto big = next_event(*connector);
  ASSERT_EQ(big.kind, Kind::kFrame);
  EXPECT_EQ(big.frame.sequence, 1U);
  EXPECT_TRUE(same_tensors(big.frame, filled(bytes, 1)));
  EXPECT_TRUE(same_tensors(next_event(*connector).frame, filled(10, 2)));
  EXPECT_TRUE(same_tensors(next_event(*connector).frame, filled(5 << 20, 3)));
}

TEST_P(CarrierContractTest, ManyPeersAreServedAtOnce) {
  auto listener = world_->make();
  const auto address = *listener->listen(world_->address());
  const EchoThread echo(std::move(listener));
  auto connector = world_->make();
  std::set<ConnectionId> made;
  for (int i = 0; i < 16; ++i) made.insert(*connector->connect(address));
  ASSERT_EQ(made.size(), 16U);
  std::map<ConnectionId, std::uint64_t> answered;
  std::size_t frames = 0;
  while (frames < 16 * 20) {
    const auto event = next_event(*connector);
    if (HasFailure()) return;
    if (event.kind == Kind::kFrame) {
      ASSERT_EQ(event.frame.sequence, answered[event.connection]++ + 1000 * event.connection);
      ++frames;
    }
    const auto next = answered[event.connection];
    if (next == 20) continue;
    ASSERT_TRUE(connector->send(event.connection, numbered(next + 1000 * event.connection)));
  }
  EXPECT_EQ(answered.size(), 16U);
}

TEST_P(CarrierContractTest, ConnectingWaitsForTheListener) {
  auto connector = world_->make();
  auto address = world_->address();
  if (address.scheme == Address::Scheme::kTcp)
    address = *world_->make()->listen(address);  // a port that is free again
  const auto made = *connector->connect(address);
  EXPECT_EQ(connector->send(made, numbered(1)).error().code, Errc::kUnavailable);
  EXPECT_EQ(connector->receive(steady_clock::now() + milliseconds(60)).error().code,
            Errc::kDeadlineExceeded);
  auto listener = world_->make();
  ASSERT_TRUE(listener->listen(address));
  EXPECT_EQ(next_event(*connector).kind, Kind::kOpened);
  EXPECT_TRUE(connector->send(made, numbered(1)));
}

TEST_P(CarrierContractTest, ARestartedListenerIsFoundAgain) {
  auto pair = make_pair(*world_);
  for (std::uint64_t life = 1; life <= 3; ++life) {
    pair.listener.reset();
    const auto closed = next_event(*pair.connector);
    ASSERT_EQ(closed.kind, Kind::kClosed);
    EXPECT_EQ(closed.connection, pair.made);
    EXPECT_FALSE(closed.detail.empty());
    EXPECT_FALSE(pair.connector->send(pair.made, numbered(1)));
    pair.listener = world_->make();
    const auto listening = pair.listener->listen(pair.address);
    ASSERT_TRUE(listening) << listening.error().what;
    const auto opened = next_of(*pair.connector, Kind::kOpened);
    EXPECT_EQ(opened.connection, pair.made);
    ASSERT_TRUE(pair.connector->send(pair.made, numbered(life)));
    EXPECT_EQ(next_of(*pair.listener, Kind::kFrame).frame.sequence, life);
  }
}

TEST_P(CarrierContractTest, AConnectorThatLeavesIsSeen) {
  auto pair = make_pair(*world_);
  ASSERT_TRUE(pair.connector->send(pair.made, numbered(1)));
  ASSERT_TRUE(pair.connector->send(pair.made, numbered(2)));
  EXPECT_EQ(next_event(*pair.listener).frame.sequence, 1U);
  EXPECT_EQ(next_event(*pair.listener).frame.sequence, 2U);
  pair.connector->close(pair.made);
  EXPECT_EQ(pair.connector->send(pair.made, numbered(3)).error().code, Errc::kUnavailable);
  const auto closed = next_event(*pair.listener);
  EXPECT_EQ(closed.kind, Kind::kClosed);
  EXPECT_EQ(closed.connection, pair.accepted);
  EXPECT_EQ(pair.listener->send(pair.accepted, numbered(3)).error().code, Errc::kUnavailable);
  // And it may come back under another number.
  const auto again = *pair.connector->connect(pair.address);
  EXPECT_NE(again, pair.made);
  const auto opened = next_of(*pair.listener, Kind::kOpened);
  EXPECT_NE(opened.connection, pair.accepted);
  EXPECT_EQ(next_event(*pair.connector).connection, again);
}

TEST_P(CarrierContractTest, WakeEndsAReceiveFromAnyThread) {
  auto carrier = world_->make();
  ASSERT_TRUE(carrier->listen(world_->address()));
  carrier->wake();  // before the receive: not lost
  EXPECT_EQ(next_event(*carrier).kind, Kind::kWoken);
  const std::jthread waker([&carrier] {
    std::this_thread::sleep_for(milliseconds(30));
    carrier->wake();
  });
  EXPECT_EQ(next_event(*carrier).kind, Kind::kWoken);
  EXPECT_FALSE(carrier->receive(steady_clock::now() + milliseconds(5)));  // once only
}

TEST_P(CarrierContractTest, AFullQueueRefusesAndLosesNothing) {
  CarrierLimits limits;
  limits.queue_frames = 8;
  auto pair = make_pair(*world_, limits);
  std::uint64_t sent = 0;
  Result<void> last;
  while (sent < 20000 && (last = pair.connector->send(pair.made, filled(100'000, 5)))) ++sent;
  ASSERT_FALSE(last) << sent << " frames of 100 kB were taken and nobody read";
  EXPECT_EQ(last.error().code, Errc::kOverloaded);
  EXPECT_GE(sent, 8U);
  std::atomic<std::uint64_t> got = 0;
  const std::jthread reader([&] {
    while (got < sent && next_event(*pair.listener).kind == Kind::kFrame) ++got;
  });
  // What waits here goes on while this end receives, too.
  for (int i = 0; i < 1000 && got < sent; ++i)
    static_cast<void>(pair.connector->receive(steady_clock::now() + milliseconds(10)));
  EXPECT_EQ(got, sent);
  // That there is room may be news that is still on its way.
  for (int i = 0; i < 1000 && !(last = pair.connector->send(pair.made, numbered(1))); ++i)
    static_cast<void>(pair.connector->receive(steady_clock::now() + milliseconds(1)));
  EXPECT_TRUE(last);
}

TEST_P(CarrierContractTest, AFrameOverTheLimitIsRefused) {
  CarrierLimits limits;
  limits.max_frame_bytes = 10'000;
  auto pair = make_pair(*world_, limits);
  EXPECT_EQ(pair.connector->send(pair.made, filled(10'000, 1)).error().code, Errc::kTooLarge);
  EXPECT_TRUE(pair.connector->send(pair.made, filled(9'000, 2)));
  EXPECT_EQ(next_event(*pair.listener).frame.sequence, 2U);
}

TEST_P(CarrierContractTest, ReceiveEndsAtItsDeadline) {
  auto pair = make_pair(*world_);
  const auto start = steady_clock::now();
  const auto got = pair.connector->receive(start + milliseconds(30));
  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, Errc::kDeadlineExceeded);
  EXPECT_GE(steady_clock::now() - start, milliseconds(30));
  EXPECT_FALSE(pair.connector->receive(steady_clock::now() - seconds(1)));
}

TEST_P(CarrierContractTest, AnAddressHasOneListener) {
  auto first = world_->make();
  const auto address = first->listen(world_->address());
  ASSERT_TRUE(address);
  const auto second = world_->make()->listen(*address);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::kIo);
}

}  // namespace
}  // namespace moesaic::transport
