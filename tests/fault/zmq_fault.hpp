#pragma once

#include <gtest/gtest.h>

#include <random>
#include <sstream>

#include "common/transport/key_folder.hpp"
#include "common/transport/zmq_carrier.hpp"
#include "tests/fault/peer_process.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic::transport {

using namespace std::chrono_literals;  // the tests of this folder only
using Clock = std::chrono::steady_clock;
using Kind = CarrierEvent::Kind;
using test::PeerProcess;

inline Frame numbered(std::uint64_t sequence, std::size_t bytes = 2600) {
  Frame frame;
  frame.sequence = sequence;
  frame.tensors.emplace_back(DType::kU8,
                             std::vector<std::int64_t>{static_cast<std::int64_t>(bytes)});
  std::mt19937_64 random(sequence);
  for (auto& value : frame.tensors[0].as<std::uint8_t>())
    value = static_cast<std::uint8_t>(random());
  return frame;
}

inline bool is_numbered(const Frame& frame, std::uint64_t sequence) {
  const auto want = numbered(sequence);
  return frame.sequence == sequence && frame.tensors.size() == 1 &&
         frame.tensors[0].shape == want.tensors[0].shape &&
         std::ranges::equal(frame.tensors[0].as<std::uint8_t>(),
                            want.tensors[0].as<std::uint8_t>());
}

inline std::optional<CarrierEvent> await(Carrier& from, Kind kind, Clock::duration patience = 5s) {
  const auto deadline = Clock::now() + patience;
  while (true) {
    auto event = from.receive(deadline);
    if (!event) return std::nullopt;
    if (event->kind == kind) return std::move(*event);
  }
}

enum class Wire { kIpc, kTcp, kCurve };
inline std::string wire_name(const testing::TestParamInfo<Wire>& info) {
  return info.param == Wire::kIpc ? "Ipc" : info.param == Wire::kTcp ? "Tcp" : "TcpWithCurve";
}

/// Keys, a carrier here (role router) and arguments for peers there (role expert-shard).
class ZmqFaultTest : public testing::Test {
 protected:
  void use(Wire wire) {
    wire_ = wire;
    if (wire != Wire::kCurve) return;
    ASSERT_TRUE(make_key(keys_, "router", "r", false));
    ASSERT_TRUE(make_key(keys_, "expert-shard", "s", false));
  }
  std::unique_ptr<ZmqCarrier> carrier(CarrierLimits limits = {}) {
    ZmqOptions options;
    options.limits = limits;
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

}  // namespace moesaic::transport
