#include <sys/resource.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>
#include <zmq.hpp>

#include "common/transport/wire.hpp"
#include "tests/fault/relay.hpp"
#include "tests/fault/zmq_fault.hpp"

namespace moesaic::transport {
namespace {

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
  do {
    ASSERT_TRUE(raw.recv(reply));
  } while (reply.to_string_view().starts_with("MSEC-ACK"));
  const auto frame = decode({reply.data<std::byte>(), reply.size()});
  ASSERT_TRUE(frame);
  EXPECT_TRUE(is_numbered(*frame, 0));
  EXPECT_LT(peer->resident_bytes(), before + kFlat);
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
      const int fd = test::raw_connect(test::port_of(address_.place));
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

/// Holds so many connections open that say nothing, and replaces those that are shown out.
class IdleCrowd {
 public:
  IdleCrowd(std::uint16_t port, std::size_t size)
      : thread_([this, port, size](const std::stop_token& stop) { run(stop, port, size); }) {}
  std::uint64_t made() const { return made_; }

 private:
  void run(const std::stop_token& stop, std::uint16_t port, std::size_t size) {
    std::vector<pollfd> held;
    while (!stop.stop_requested()) {
      for (int i = 0; held.size() < size && i < 100; ++i) {
        const int fd = test::raw_connect(port, SOCK_NONBLOCK);
        if (fd < 0) break;
        held.push_back({fd, POLLRDHUP, 0});
        ++made_;
      }
      ::poll(held.data(), held.size(), 1);
      std::erase_if(held, [](const pollfd& it) { return it.revents != 0 && ::close(it.fd) == 0; });
    }
    for (const auto& it : held) ::close(it.fd);
  }

  std::atomic<std::uint64_t> made_ = 0;
  std::jthread thread_;
};

TEST_F(ZmqFaultTest, AnIdleCrowdNeitherTakesTheDescriptorsNorThePlaceOfPeers) {
  use(Wire::kCurve);
  const auto peer = echo(listen_text());
  constexpr rlim_t kDescriptors = 1024;
  const rlimit few{kDescriptors, kDescriptors};
  ASSERT_EQ(::prlimit(peer->pid(), RLIMIT_NOFILE, &few, nullptr), 0);
  auto asker = carrier();
  const auto connection = asker->connect(address_);
  ASSERT_TRUE(connection);
  ASSERT_TRUE(await(*asker, Kind::kOpened));
  ASSERT_TRUE(answered(*asker, *connection, 0, 200));

  const IdleCrowd crowd(test::port_of(address_.place), 2'500);
  std::uint64_t next = 200;
  std::size_t memory = 0;
  int full = 0;   // looks at which there was no descriptor left
  int again = 0;  // whom the crowd pushed out before it could say who it is
  for (int round = 0; round < 12; ++round) {
    for (int i = 0; i < 50; ++i, next += 4) {
      ASSERT_TRUE(answered(*asker, *connection, next, next + 4)) << round;
      if (peer->descriptors() >= kDescriptors) ++full;
    }
    // One more with a key gets in and is answered, in the middle of it.
    auto another = carrier();
    const auto its = another->connect(address_);
    ASSERT_TRUE(its);
    ASSERT_TRUE(await(*another, Kind::kOpened)) << round;
    if (!answered(*another, *its, 0, 5)) ++again;
    if (round == 4) memory = peer->resident_bytes();
  }
  EXPECT_GT(crowd.made(), 5'000U);
  // A process kept from running for a moment finds hundreds at the door; they may not stay.
  EXPECT_LE(full, 6) << "of 600 looks";
  EXPECT_LE(again, 2);
  EXPECT_LT(peer->resident_bytes(), memory + kFlat);
}

/// A peer that speaks the protocol below ours by hand: a library would not send what it sends.
class HandMade {
 public:
  explicit HandMade(const Address& address) : fd_(test::raw_connect(test::port_of(address.place))) {
    std::string words(64, '\0');
    words[0] = '\xff';
    words[9] = '\x7f';
    words[10] = 3;
    words.replace(12, 4, "NULL");
    const std::string ready(
        "\x05READY\x0bSocket-Type\0\0\0\x06"
        "DEALER",
        6 + 12 + 4 + 6);
    words += std::string("\x04") + static_cast<char>(ready.size()) + ready;
    EXPECT_TRUE(say(words));
    std::string heard;  // its greeting and its READY; only then it takes messages
    char c = 0;
    while (!heard.ends_with("READY") && ::read(fd_, &c, 1) == 1) heard += c;
    EXPECT_TRUE(say(std::string("\0\x08MSEC-HI!", 10)));
  }
  ~HandMade() { ::close(fd_); }
  HandMade(const HandMade&) = delete;
  HandMade& operator=(const HandMade&) = delete;

  /// False: the connection has ended.
  bool say(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto put = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (put <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(put));
      said_ += static_cast<std::size_t>(put);
    }
    return true;
  }
  /// One part of a message of which there is more.
  static std::string part(std::uint32_t bytes) {
    std::string text("\x03\0\0\0\0", 5);
    for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(bytes >> shift & 0xff);
    return text + std::string(bytes, 'x');
  }
  std::size_t said() const { return said_; }

 private:
  int fd_;
  std::size_t said_ = 0;
};

TEST_F(ZmqFaultTest, AMessageWithoutEndEndsItsConnectionNotOurMemory) {
  use(Wire::kTcp);
  CarrierLimits limits;
  limits.max_frame_bytes = 4 << 20;
  auto listener = carrier(limits);
  const auto bound = listener->listen(*parse_address(listen_text()));
  ASSERT_TRUE(bound) << bound.error().what;
  std::atomic<bool> over = false;
  std::uint64_t closed = 0;
  std::jthread echo([&] {
    while (!over) {
      auto event = listener->receive(Clock::now() + 50ms);
      if (event && event->kind == Kind::kClosed) ++closed;
      if (event && event->kind == Kind::kFrame)
        static_cast<void>(listener->send(event->connection, std::move(event->frame)));
    }
  });
  auto asker = carrier();
  const auto connection = asker->connect(*bound);
  ASSERT_TRUE(connection);
  ASSERT_TRUE(await(*asker, Kind::kOpened));
  for (const std::uint32_t bytes : {100'000U, 1'000U}) {
    HandMade endless(*bound);
    const auto part = HandMade::part(bytes);
    const auto patience = Clock::now() + 10s;
    while (endless.say(part) && Clock::now() < patience) {
    }
    EXPECT_LT(Clock::now(), patience);
    // One frame, the buffers of kernels, and what came while it was only suspected.
    EXPECT_LT(endless.said(), std::size_t{512} << 20);
    EXPECT_TRUE(answered(*asker, *connection, 0, 20));
  }
  over = true;
  echo.join();
  EXPECT_EQ(closed, 2U);
  EXPECT_EQ(listener->malformed(), 2U);
}

TEST_F(ZmqFaultTest, APartOverTheLimitEndsItsConnection) {
  use(Wire::kTcp);
  const auto peer = echo(listen_text());
  HandMade greedy(address_);
  const auto before = peer->resident_bytes();
  const auto part = HandMade::part(100'000'000);
  const auto patience = Clock::now() + 5s;
  while (greedy.say(part) && Clock::now() < patience) {
  }
  EXPECT_LT(Clock::now(), patience);
  EXPECT_LT(peer->resident_bytes(), before + kFlat);
  auto asker = carrier();
  const auto connection = asker->connect(address_);
  ASSERT_TRUE(connection);
  ASSERT_TRUE(await(*asker, Kind::kOpened));
  EXPECT_TRUE(answered(*asker, *connection, 0, 20));
}

}  // namespace
}  // namespace moesaic::transport
