#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <random>
#include <sstream>
#include <thread>
#include <zmq.hpp>

#include "common/transport/key_folder.hpp"
#include "common/transport/wire.hpp"
#include "common/transport/zmq_carrier.hpp"
#include "tests/fault/peer_process.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic::transport {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Kind = CarrierEvent::Kind;
using test::PeerProcess;

Frame numbered(std::uint64_t sequence, std::size_t bytes = 2600) {
  Frame frame;
  frame.sequence = sequence;
  frame.tensors.emplace_back(DType::kU8,
                             std::vector<std::int64_t>{static_cast<std::int64_t>(bytes)});
  std::mt19937_64 random(sequence);
  for (auto& value : frame.tensors[0].as<std::uint8_t>())
    value = static_cast<std::uint8_t>(random());
  return frame;
}

bool is_numbered(const Frame& frame, std::uint64_t sequence) {
  const auto want = numbered(sequence);
  return frame.sequence == sequence && frame.tensors.size() == 1 &&
         frame.tensors[0].shape == want.tensors[0].shape &&
         std::ranges::equal(frame.tensors[0].as<std::uint8_t>(),
                            want.tensors[0].as<std::uint8_t>());
}

std::optional<CarrierEvent> await(Carrier& from, Kind kind, Clock::duration patience = 5s) {
  const auto deadline = Clock::now() + patience;
  while (true) {
    auto event = from.receive(deadline);
    if (!event) return std::nullopt;
    if (event->kind == kind) return std::move(*event);
  }
}

enum class Wire { kIpc, kTcp, kCurve };

/// Keys, a carrier here (role router) and arguments for peers there (role expert-shard).
class ZmqFaultTest : public testing::Test {
 protected:
  void use(Wire wire) {
    wire_ = wire;
    if (wire != Wire::kCurve) return;
    ASSERT_TRUE(make_key(keys_, "router", "r", false));
    ASSERT_TRUE(make_key(keys_, "expert-shard", "s", false));
  }
  std::unique_ptr<ZmqCarrier> carrier() {
    ZmqOptions options;
    if (wire_ == Wire::kCurve)
      options.keys = std::make_shared<const KeyRing>(*KeyRing::load(keys_, "router", "r"));
    return std::move(*ZmqCarrier::make(std::move(options)));
  }
  std::string listen_text() {
    return wire_ == Wire::kIpc ? "ipc://" + (temp_ / "sockets" / "x.ipc").string()
                               : "tcp://127.0.0.1:0";
  }
  std::vector<std::string> with_keys(std::vector<std::string> arguments) {
    if (wire_ == Wire::kCurve)
      arguments.insert(arguments.end(), {keys_.string(), "expert-shard", "s"});
    return arguments;
  }
  /// An echo process; `address_` is where it listens.
  std::unique_ptr<PeerProcess> echo(const std::string& where) {
    auto peer = std::make_unique<PeerProcess>(with_keys({"echo", where}));
    std::istringstream words(peer->line());
    std::string place, key;
    words >> place >> key;
    const auto parsed = parse_address(place, key == "-" ? "" : key);
    EXPECT_TRUE(parsed) << place;
    if (parsed) address_ = *parsed;
    return peer;
  }
  /// Asks and gets frames `from` up to `to`, one after the other.
  static bool answered(Carrier& asker, ConnectionId connection, std::uint64_t from,
                       std::uint64_t to) {
    for (auto i = from; i < to; ++i) {
      if (!asker.send(connection, numbered(i))) return false;
      const auto answer = await(asker, Kind::kFrame);
      if (!answer || !is_numbered(answer->frame, i)) return false;
    }
    return true;
  }

  test::TempDir temp_;
  std::filesystem::path keys_ = temp_ / "keys";
  Wire wire_{};
  Address address_;
};

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
  for (std::uint64_t i = 0; i < 50; ++i) static_cast<void>(asker->send(*connection, numbered(i)));
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
                         testing::Values(Wire::kIpc, Wire::kTcp, Wire::kCurve),
                         [](const auto& name) -> std::string {
                           return name.param == Wire::kIpc   ? "Ipc"
                                  : name.param == Wire::kTcp ? "Tcp"
                                                             : "TcpWithCurve";
                         });

/// Memory may grow by what allocators keep, not by what peers send.
constexpr std::size_t kFlat = std::size_t{8} << 20;

TEST_F(ZmqFaultTest, AHundredThousandMalformedFramesOfAnAuthenticatedPeerDoNoHarm) {
  use(Wire::kCurve);
  const auto peer = echo(listen_text());
  auto asker = carrier();
  const auto connection = asker->connect(address_);
  ASSERT_TRUE(connection);
  ASSERT_TRUE(await(*asker, Kind::kOpened));
  ASSERT_TRUE(answered(*asker, *connection, 0, 200));

  // Another peer with a good key, but without our manners.
  const auto ring = *KeyRing::load(keys_, "expert-shard", "s");
  zmq::context_t context;
  zmq::socket_t raw(context, zmq::socket_type::dealer);
  raw.set(zmq::sockopt::linger, 0);
  raw.set(zmq::sockopt::curve_serverkey, address_.server_key);
  raw.set(zmq::sockopt::curve_publickey, ring.own().public_key);
  raw.set(zmq::sockopt::curve_secretkey, ring.own().secret_key);
  raw.connect(to_string(address_));
  raw.send(zmq::str_buffer("MSEC-HI!"), zmq::send_flags::none);
  const auto valid = numbered(0);
  std::vector<std::byte> good(encoded_size(valid));
  encode(valid, good);

  std::mt19937_64 random(7);
  std::uint64_t answered_so_far = 200;
  const auto send_bad = [&](int count) {
    for (int i = 0; i < count; ++i) {
      auto bytes = good;
      switch (random() % 4) {
        case 0:  // anything
          bytes.resize(random() % 4096);
          for (auto& byte : bytes) byte = static_cast<std::byte>(random());
          break;
        case 1:  // cut short
          bytes.resize(random() % bytes.size());
          break;
        case 2:  // a bit flipped
          bytes[random() % bytes.size()] ^= static_cast<std::byte>(1U << random() % 8);
          break;
        default:  // several parts
          raw.send(zmq::buffer(bytes), zmq::send_flags::sndmore);
          break;
      }
      raw.send(zmq::buffer(bytes), zmq::send_flags::none);
    }
  };
  send_bad(20'000);
  ASSERT_TRUE(answered(*asker, *connection, answered_so_far, answered_so_far + 50));
  answered_so_far += 50;
  const auto before = peer->resident_bytes();
  for (int round = 0; round < 80; ++round) {
    send_bad(1'000);
    ASSERT_TRUE(answered(*asker, *connection, answered_so_far, answered_so_far + 10));
    answered_so_far += 10;
  }
  // The flooder itself is answered, too, once it speaks properly.
  raw.set(zmq::sockopt::rcvtimeo, 5000);
  raw.send(zmq::buffer(good), zmq::send_flags::none);
  zmq::message_t reply;
  ASSERT_TRUE(raw.recv(reply));
  const auto frame = decode({reply.data<std::byte>(), reply.size()});
  ASSERT_TRUE(frame);
  EXPECT_TRUE(is_numbered(*frame, 0));
  EXPECT_LT(peer->resident_bytes(), before + kFlat);
}

int raw_connect(const Address& address) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(
      static_cast<std::uint16_t>(std::stoi(address.place.substr(address.place.rfind(':') + 1))));
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) {
    ::close(fd);
    return -1;
  }
  return fd;
}

TEST_F(ZmqFaultTest, AFloodOfUnauthenticatedConnectionsDoesNotEndService) {
  use(Wire::kCurve);
  const auto peer = echo(listen_text());
  auto asker = carrier();
  const auto connection = asker->connect(address_);
  ASSERT_TRUE(connection);
  ASSERT_TRUE(await(*asker, Kind::kOpened));
  ASSERT_TRUE(answered(*asker, *connection, 0, 200));
  const auto descriptors = peer->descriptors();

  // A greeting of ZMTP 3.1 that announces CURVE, and nothing after it.
  std::string greeting(64, '\0');
  greeting[0] = '\xff';
  greeting[9] = '\x7f';
  greeting[10] = 3;
  greeting[11] = 1;
  greeting.replace(12, 5, "CURVE");
  std::mt19937_64 random(11);
  std::string garbage(512, '\0');
  for (auto& c : garbage) c = static_cast<char>(random());

  std::uint64_t next = 200;
  std::size_t memory = 0;
  // The first wave shows what a wave takes; the second must not take more.
  for (int wave = 0; wave < 2; ++wave) {
    std::vector<int> held;
    for (int i = 0; i < 2'000; ++i) {
      const int fd = raw_connect(address_);
      if (fd < 0) continue;
      if (i % 3 == 1) static_cast<void>(!::write(fd, greeting.data(), greeting.size()));
      if (i % 3 == 2) static_cast<void>(!::write(fd, garbage.data(), garbage.size()));
      held.push_back(fd);
      if (i % 50 != 0) continue;
      ASSERT_TRUE(answered(*asker, *connection, next, next + 4)) << i;
      next += 4;
    }
    EXPECT_GT(held.size(), 1'500U);
    // All are shown out when the time for a handshake is over, though they hold on.
    const auto patience = Clock::now() + 10s;
    while (peer->descriptors() > descriptors + 10 && Clock::now() < patience) {
      ASSERT_TRUE(answered(*asker, *connection, next, next + 10));
      next += 10;
    }
    EXPECT_LE(peer->descriptors(), descriptors + 10);
    if (wave == 0) memory = peer->resident_bytes();
    for (const int fd : held) ::close(fd);
  }
  EXPECT_LT(peer->resident_bytes(), memory + kFlat);
  // A peer with a key still gets in.
  auto another = carrier();
  ASSERT_TRUE(another->connect(address_));
  EXPECT_TRUE(await(*another, Kind::kOpened));
}

}  // namespace
}  // namespace moesaic::transport
