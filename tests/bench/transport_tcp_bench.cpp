// What the ZeroMQ wires cost a token, against a bare TCP chain in the same run: 27 layers, each a
// question of 2.6 KB to 2 peers in processes of their own and an answer of 5.1 KB from each.
//   transport_tcp_bench [TOKENS]      medians over TOKENS (200) per wire, in turns
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "common/transport/carriers.hpp"
#include "tests/bench/transport_chain.hpp"
#include "tests/support/temp_dir.hpp"

namespace {

using namespace moesaic;
using namespace moesaic::transport;
using namespace moesaic::bench;
using Clock = std::chrono::steady_clock;

Frame frame_of(std::size_t bytes) {
  Frame frame;
  frame.tensors.emplace_back(DType::kU8,
                             std::vector<std::int64_t>{static_cast<std::int64_t>(bytes)});
  return frame;
}

class BareTcp final : public Chain {
 public:
  BareTcp() {
    for (auto& fd : fds_) {
      const auto port = start_child(serve);
      sockaddr_in to{};
      to.sin_family = AF_INET;
      to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(port)));
      fd = ::socket(AF_INET, SOCK_STREAM, 0);
      if (::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0)
        stop("cannot connect");
      no_delay(fd);
    }
  }
  void layer() override {
    for (const int fd : fds_) put(fd, question_);
    for (const int fd : fds_) get(fd, answer_);
  }

 private:
  static void no_delay(int fd) {
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  static void put(int fd, const std::vector<char>& bytes) {
    for (std::size_t done = 0; done < bytes.size();) {
      const auto n = ::write(fd, bytes.data() + done, bytes.size() - done);
      if (n <= 0) std::_Exit(1);
      done += static_cast<std::size_t>(n);
    }
  }
  static void get(int fd, std::vector<char>& bytes) {
    for (std::size_t done = 0; done < bytes.size();) {
      const auto n = ::read(fd, bytes.data() + done, bytes.size() - done);
      if (n <= 0) std::_Exit(1);
      done += static_cast<std::size_t>(n);
    }
  }
  static void serve(int out) {
    const int listening = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof at;
    if (::bind(listening, reinterpret_cast<const sockaddr*>(&at), size) != 0) std::_Exit(1);
    ::listen(listening, 1);
    ::getsockname(listening, reinterpret_cast<sockaddr*>(&at), &size);
    tell(out, std::to_string(ntohs(at.sin_port)));
    const int fd = ::accept(listening, nullptr, nullptr);
    no_delay(fd);
    std::vector<char> question(kQuestion), answer(kAnswer);
    while (true) {
      get(fd, question);
      put(fd, answer);
    }
  }
  std::array<int, kPeers> fds_{};
  std::vector<char> question_ = std::vector<char>(kQuestion);
  std::vector<char> answer_ = std::vector<char>(kAnswer);
};

class Carried final : public Chain {
 public:
  /// @param options of the asking side, then of the peers; @param where each peer listens
  Carried(const ZmqOptions& asking, const ZmqOptions& answering,
          const std::array<std::string, kPeers>& where)
      : asking_(asking) {
    for (const auto& text : where) {
      const auto line = start_child([&](int out) { serve(out, answering, text); });
      const auto space = line.find(' ');
      addresses_.push_back(*parse_address(line.substr(0, space), line.substr(space + 1)));
    }
  }
  /// Apart from the constructor: all children are forked before the first thread starts.
  void connect() {
    carrier_ = std::move(*make_zmq_carrier(asking_));
    for (const auto& address : addresses_) connections_.push_back(*carrier_->connect(address));
    for (int opened = 0; opened < kPeers;) {
      const auto event = carrier_->receive(Clock::now() + std::chrono::seconds(5));
      if (!event) stop("a peer does not answer");
      opened += event->kind == CarrierEvent::Kind::kOpened ? 1 : 0;
    }
  }
  void layer() override {
    for (const auto connection : connections_)
      if (!carrier_->send(connection, frame_of(kQuestion))) stop("send failed");
    for (int answers = 0; answers < kPeers;) {
      const auto event = carrier_->receive(Clock::now() + std::chrono::seconds(5));
      if (!event || event->kind != CarrierEvent::Kind::kFrame) stop("an answer is missing");
      ++answers;
    }
  }

 private:
  static void serve(int out, const ZmqOptions& options, const std::string& where) {
    auto carrier = std::move(*make_zmq_carrier(options));
    const auto bound = carrier->listen(*parse_address(where));
    if (!bound) stop(bound.error().what);
    tell(out, to_string(*bound) + " " + bound->server_key);
    while (true) {
      const auto event = carrier->receive(Clock::time_point::max());
      if (event && event->kind == CarrierEvent::Kind::kFrame)
        static_cast<void>(carrier->send(event->connection, frame_of(kAnswer)));
    }
  }
  ZmqOptions asking_;
  std::vector<Address> addresses_;
  std::unique_ptr<Carrier> carrier_;
  std::vector<ConnectionId> connections_;
};

}  // namespace

int main(int argc, char** argv) {
  const int tokens = argc > 1 ? std::atoi(argv[1]) : 200;
  test::TempDir temp;
  const auto asker = make_key_pair();
  const auto shard = make_key_pair();
  const std::vector<KnownKey> known{{"decoder", "d", asker.public_key},
                                    {"expert-shard", "s", shard.public_key}};
  const auto keyed = [&](const KeyPair& own) {
    ZmqOptions options;
    options.keys = std::make_shared<const KeyRing>(own, known);
    return options;
  };
  const auto ipc = [&](const char* name) { return "ipc://" + (temp / "s" / name).string(); };
  const std::string tcp = "tcp://127.0.0.1:0";

  BareTcp bare;
  Carried over_ipc({}, {}, {ipc("0"), ipc("1")});
  Carried over_tcp({}, {}, {tcp, tcp});
  Carried over_curve(keyed(asker), keyed(shard), {tcp, tcp});
  for (auto* carried : {&over_ipc, &over_tcp, &over_curve}) carried->connect();

  compare(
      {{"bare TCP", &bare}, {"ipc", &over_ipc}, {"tcp", &over_tcp}, {"tcp + CURVE", &over_curve}},
      tokens);
}
