#include "common/transport/zmq_carrier.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <zmq.hpp>

#include "common/transport/endpoint.hpp"
#include "common/transport/wire.hpp"
#include "tests/support/temp_dir.hpp"
#include "tests/unit/transport/carrier_contract.hpp"

namespace moesaic::transport {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using Kind = CarrierEvent::Kind;
using testing::HasSubstr;

Frame numbered(std::uint64_t sequence, std::size_t bytes = 16) {
  Frame frame;
  frame.sequence = sequence;
  frame.tensors.emplace_back(DType::kU8,
                             std::vector<std::int64_t>{static_cast<std::int64_t>(bytes)});
  for (std::size_t i = 0; i < bytes; ++i)
    frame.tensors[0].bytes.data()[i] = static_cast<std::byte>(i * 7 + sequence);
  return frame;
}

/// Keys of a small cluster: what each process's ring would be.
struct Keys {
  KeyPair router = make_key_pair(), shard = make_key_pair(), decoder = make_key_pair();
  std::vector<KnownKey> known{{"router", "r", router.public_key},
                              {"expert-shard", "s", shard.public_key},
                              {"decoder", "d", decoder.public_key}};

  ZmqOptions as(const KeyPair& own) const {
    ZmqOptions options;
    options.keys = std::make_shared<const KeyRing>(own, known);
    return options;
  }
};

std::unique_ptr<ZmqCarrier> carrier(ZmqOptions options) {
  auto made = ZmqCarrier::make(std::move(options));
  EXPECT_TRUE(made) << made.error().what;
  return std::move(*made);
}

/// The next event of that kind within 3 s; others are dropped.
std::optional<CarrierEvent> await(Carrier& from, Kind kind, Clock::duration patience = 3s) {
  const auto deadline = Clock::now() + patience;
  while (true) {
    auto event = from.receive(deadline);
    if (!event) return std::nullopt;
    if (event->kind == kind) return std::move(*event);
  }
}

TEST(ZmqCarrierTest, TcpBeyondLoopbackNeedsKeysOrTheWord) {
  const auto address = *parse_address("tcp://192.0.2.1:7400");
  auto without = carrier({});
  for (const auto& error : {without->listen(address).error(), without->connect(address).error()}) {
    EXPECT_EQ(error.code, Errc::kInvalidArgument);
    EXPECT_THAT(error.what, HasSubstr("tcp://192.0.2.1:7400"));
    EXPECT_THAT(error.what, HasSubstr("transport.plaintext"));
    EXPECT_EQ(error.what.find('\n'), std::string::npos);
  }
  ZmqOptions said;
  said.plaintext = true;
  EXPECT_TRUE(carrier(said)->connect(address));
}

TEST(ZmqCarrierTest, AnIpcFolderIsMadeForUsAlone) {
  test::TempDir temp;
  auto one = carrier({});
  const auto address = *parse_address("ipc://" + (temp / "sockets" / "a.ipc").string());
  ASSERT_TRUE(one->listen(address));
  EXPECT_EQ(std::filesystem::status(temp / "sockets").permissions(), std::filesystem::perms(0700));

  std::filesystem::create_directory(temp / "open");
  std::filesystem::permissions(temp / "open", std::filesystem::perms(0755));
  const auto refused = one->listen(*parse_address("ipc://" + (temp / "open" / "a.ipc").string()));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().what, HasSubstr("0700"));

  auto other = carrier({});
  const auto taken = other->listen(address);
  ASSERT_FALSE(taken);
  EXPECT_THAT(taken.error().what, HasSubstr("in use"));
}

TEST(ZmqCarrierTest, ATakenPortIsAnErrorThatNamesIt) {
  auto one = carrier({});
  const auto bound = one->listen(*parse_address("tcp://127.0.0.1:0"));
  ASSERT_TRUE(bound);
  auto other = carrier({});
  const auto taken = other->listen(*bound);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code, Errc::kIo);
  EXPECT_THAT(taken.error().what, HasSubstr(bound->place));
}

TEST(ZmqCarrierTest, ListensOnSeveralAddressesAtOnce) {
  test::TempDir temp;
  const Keys keys;
  auto listener = carrier(keys.as(keys.router));
  const auto ipc = listener->listen(*parse_address("ipc://" + (temp / "a" / "x").string()));
  const auto tcp = listener->listen(*parse_address("tcp://127.0.0.1:0"));
  const auto v6 = listener->listen(*parse_address("tcp://[::1]:0"));
  ASSERT_TRUE(ipc && tcp && v6) << v6.error().what;
  EXPECT_EQ(ipc->server_key, "");
  EXPECT_EQ(tcp->server_key, keys.router.public_key);
  auto connector = carrier(keys.as(keys.decoder));
  for (const auto& address : {*ipc, *tcp, *v6}) {
    const auto connection = connector->connect(address);
    ASSERT_TRUE(connection);
    ASSERT_TRUE(await(*connector, Kind::kOpened)) << to_string(address);
    ASSERT_TRUE(connector->send(*connection, numbered(1)));
    const auto opened = await(*listener, Kind::kOpened);
    ASSERT_TRUE(opened);
    EXPECT_EQ(opened->key_owner, address == *ipc ? "" : "decoder/d");
    EXPECT_TRUE(await(*listener, Kind::kFrame));
  }
}

class CurveTest : public testing::Test {
 protected:
  void SetUp() override {
    listener_ = carrier(keys_.as(keys_.router));
    auto bound = listener_->listen(*parse_address("tcp://127.0.0.1:0"));
    ASSERT_TRUE(bound) << bound.error().what;
    address_ = *bound;
  }
  /// The first answer to a connection attempt.
  std::optional<CarrierEvent> attempt(Carrier& connector, const Address& address) {
    const auto connection = connector.connect(address);
    if (!connection) return std::nullopt;
    auto event = connector.receive(Clock::now() + 3s);
    return event ? std::optional(std::move(*event)) : std::nullopt;
  }
  Keys keys_;
  std::unique_ptr<ZmqCarrier> listener_;
  Address address_;
};

TEST_F(CurveTest, BothSidesKnowWhomThePeersKeyBelongsTo) {
  auto shard = carrier(keys_.as(keys_.shard));
  const auto connection = shard->connect(address_);
  ASSERT_TRUE(connection);
  const auto opened = await(*shard, Kind::kOpened);
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->key_owner, "router/r");
  EXPECT_FALSE(opened->accepted);
  ASSERT_TRUE(shard->send(*connection, numbered(1)));
  const auto accepted = await(*listener_, Kind::kOpened);
  ASSERT_TRUE(accepted);
  EXPECT_EQ(accepted->key_owner, "expert-shard/s");  // whatever its frames say
  EXPECT_TRUE(accepted->accepted);
}

TEST_F(CurveTest, AnUnknownKeyIsRefused) {
  Keys stranger = keys_;
  stranger.decoder = make_key_pair();
  auto connector = carrier(stranger.as(stranger.decoder));
  const auto event = attempt(*connector, address_);
  ASSERT_TRUE(event);
  EXPECT_EQ(event->kind, Kind::kRefused);
  EXPECT_THAT(event->detail, HasSubstr("does not admit our key"));
  EXPECT_FALSE(await(*listener_, Kind::kOpened, 300ms));
}

TEST_F(CurveTest, AListenerWithAnotherKeyIsRefused) {
  auto connector = carrier(keys_.as(keys_.decoder));
  auto wrong = address_;
  wrong.server_key = keys_.shard.public_key;
  const auto event = attempt(*connector, wrong);
  ASSERT_TRUE(event);
  EXPECT_EQ(event->kind, Kind::kRefused);
  EXPECT_THAT(event->detail, HasSubstr(to_string(address_)));
}

TEST_F(CurveTest, AListenerKeyThatIsNotKnownIsNotTried) {
  auto connector = carrier(keys_.as(keys_.decoder));
  for (const auto& key : {make_key_pair().public_key, std::string()}) {
    auto address = address_;
    address.server_key = key;
    const auto connection = connector->connect(address);
    ASSERT_FALSE(connection);
    EXPECT_EQ(connection.error().code, Errc::kInvalidArgument);
  }
}

TEST_F(CurveTest, ASecretThatDoesNotBelongToAnAdmittedPublicKeyIsRefused) {
  auto forged = keys_;
  forged.decoder.secret_key = make_key_pair().secret_key;  // claims the decoder's public key
  auto connector = carrier(forged.as(forged.decoder));
  ASSERT_TRUE(connector->connect(address_));
  EXPECT_FALSE(await(*connector, Kind::kOpened, 500ms));
  EXPECT_FALSE(await(*listener_, Kind::kOpened, 100ms));
}

TEST_F(CurveTest, APlainConnectorDoesNotGetThrough) {
  auto connector = carrier({});
  auto plain = address_;
  plain.server_key.clear();
  ASSERT_TRUE(connector->connect(plain));
  EXPECT_FALSE(await(*connector, Kind::kOpened, 500ms));
  EXPECT_FALSE(await(*listener_, Kind::kOpened, 100ms));
}

TEST_F(CurveTest, TwoKeysOfOneOwnerAreValidDuringRotation) {
  Keys rotating = keys_;
  const auto next = make_key_pair();
  rotating.known.push_back({"decoder", "d", next.public_key});
  auto listener = carrier(rotating.as(rotating.router));
  const auto bound = listener->listen(*parse_address("tcp://127.0.0.1:0"));
  ASSERT_TRUE(bound);
  for (const auto& pair : {rotating.decoder, next}) {
    auto connector = carrier(rotating.as(pair));
    const auto connection = connector->connect(*bound);
    ASSERT_TRUE(connection);
    ASSERT_TRUE(await(*connector, Kind::kOpened));
    ASSERT_TRUE(connector->send(*connection, numbered(1)));
    const auto opened = await(*listener, Kind::kOpened);
    ASSERT_TRUE(opened);
    EXPECT_EQ(opened->key_owner, "decoder/d");
  }
}

EndpointConfig config_of(const char* role, const char* name) {
  EndpointConfig config;
  config.self.role = role;
  config.self.name = name;
  config.self.incarnation = 1;
  return config;
}

/// What each side tells first of the other, while both wait: why not, or "up".
struct Verdicts {
  std::string of_listener, of_connector;
};
Verdicts introduce(Endpoint& listener, Endpoint& connector) {
  Verdicts told;
  const auto hear = [](Endpoint& endpoint, std::string& verdict) {
    const auto event = endpoint.receive(Clock::now() + 10ms);
    if (!event || !verdict.empty()) return;
    verdict = event->kind == Event::Kind::kUp ? "up" : event->detail;
  };
  for (int i = 0; i < 200 && told.of_connector.empty(); ++i) {
    hear(listener, told.of_listener);
    hear(connector, told.of_connector);
  }
  hear(listener, told.of_listener);
  return told;
}

TEST_F(CurveTest, NobodyTakesARoleOrANameThatHisKeyDoesNotHave) {
  struct Case {
    const char *role, *name;
  };
  // The key is that of expert-shard/s.
  for (const auto& claim : {Case{"router", "r"}, Case{"expert-shard", "t"}, Case{"router", "s"}}) {
    Endpoint decoder(config_of("decoder", "d"), carrier(keys_.as(keys_.decoder)));
    const auto bound = decoder.listen(*parse_address("tcp://127.0.0.1:0"));
    ASSERT_TRUE(bound) << bound.error().what;
    Endpoint impostor(config_of(claim.role, claim.name), carrier(keys_.as(keys_.shard)));
    ASSERT_TRUE(impostor.connect(*bound));
    const auto told = introduce(decoder, impostor);
    EXPECT_EQ(told.of_listener, "");
    EXPECT_EQ(told.of_connector, std::string(claim.role) + "/" + claim.name +
                                     " refused by decoder/d: its key is that of expert-shard/s");
  }
}

TEST_F(CurveTest, AListenerUnderAnotherNameThanItsKeysIsRefusedByWhoConnects) {
  Endpoint impostor(config_of("expert-shard", "t"), carrier(keys_.as(keys_.shard)));
  const auto bound = impostor.listen(*parse_address("tcp://127.0.0.1:0"));
  ASSERT_TRUE(bound) << bound.error().what;
  Endpoint decoder(config_of("decoder", "d"), carrier(keys_.as(keys_.decoder)));
  ASSERT_TRUE(decoder.connect(*bound));
  EXPECT_EQ(introduce(impostor, decoder).of_connector,
            "expert-shard/t refused by decoder/d: its key is that of expert-shard/s");
}

TEST_F(CurveTest, BothKeysOfARotationGiveTheSameName) {
  auto rotating = keys_;
  const auto next = make_key_pair();
  rotating.known.push_back({"expert-shard", "s", next.public_key});
  for (const auto& pair : {rotating.shard, next}) {
    Endpoint decoder(config_of("decoder", "d"), carrier(rotating.as(rotating.decoder)));
    const auto bound = decoder.listen(*parse_address("tcp://127.0.0.1:0"));
    ASSERT_TRUE(bound) << bound.error().what;
    Endpoint shard(config_of("expert-shard", "s"), carrier(rotating.as(pair)));
    ASSERT_TRUE(shard.connect(*bound));
    const auto told = introduce(decoder, shard);
    EXPECT_EQ(told.of_listener, "up");
    EXPECT_EQ(told.of_connector, "up");
  }
}

TEST(ZmqCarrierTest, MalformedFramesAreCountedAndDropped) {
  test::TempDir temp;
  auto listener = carrier({});
  const auto bound = listener->listen(*parse_address("ipc://" + (temp / "a").string()));
  ASSERT_TRUE(bound);
  zmq::context_t context;
  zmq::socket_t raw(context, zmq::socket_type::dealer);
  raw.set(zmq::sockopt::linger, 0);
  raw.connect(to_string(*bound));
  raw.send(zmq::str_buffer("MSEC-HI!"), zmq::send_flags::none);
  const auto frame = numbered(3);
  std::vector<std::byte> bytes(encoded_size(frame));
  encode(frame, bytes);
  auto wrong = bytes;
  wrong.back() ^= std::byte{1};
  for (int i = 0; i < 5; ++i) raw.send(zmq::buffer(wrong), zmq::send_flags::none);
  raw.send(zmq::buffer(bytes), zmq::send_flags::none);
  EXPECT_EQ(next_event(*listener).kind, Kind::kOpened);
  const auto event = next_event(*listener);
  EXPECT_EQ(event.kind, Kind::kFrame);
  EXPECT_EQ(event.frame.sequence, 3U);
  EXPECT_EQ(listener->malformed(), 5U);
}

TEST(ZmqCarrierTest, ConnectionsOverTheLimitAreShownOut) {
  test::TempDir temp;
  ZmqOptions options;
  options.limits.max_connections = 2;
  auto listener = carrier(options);
  const auto bound = listener->listen(*parse_address("ipc://" + (temp / "a").string()));
  ASSERT_TRUE(bound);
  auto one = carrier({}), two = carrier({}), three = carrier({});
  for (auto* connector : {&one, &two}) {
    ASSERT_TRUE((*connector)->connect(*bound));
    ASSERT_TRUE(await(*listener, Kind::kOpened));
  }
  ASSERT_TRUE(three->connect(*bound));
  EXPECT_FALSE(await(*listener, Kind::kOpened, 100ms));
  const auto closed = await(*three, Kind::kClosed);
  ASSERT_TRUE(closed);
  EXPECT_THAT(closed->detail, HasSubstr("the listener closed"));
  one.reset();  // makes room; the third tries again
  EXPECT_TRUE(await(*listener, Kind::kClosed));
  const auto deadline = Clock::now() + 3s;
  bool opened = false;
  while (!opened && Clock::now() < deadline) {
    static_cast<void>(three->receive(Clock::now() + 20ms));
    const auto event = listener->receive(Clock::now() + 20ms);
    opened = event && event->kind == Kind::kOpened;
  }
  EXPECT_TRUE(opened);
}

TEST(ZmqCarrierTest, AConnectionTheListenerClosesEndsOnBothSides) {
  test::TempDir temp;
  auto listener = carrier({});
  const auto bound = listener->listen(*parse_address("ipc://" + (temp / "a").string()));
  ASSERT_TRUE(bound);
  auto connector = carrier({});
  const auto connection = connector->connect(*bound);
  ASSERT_TRUE(connection);
  ASSERT_TRUE(await(*connector, Kind::kOpened));
  const auto accepted = await(*listener, Kind::kOpened);
  ASSERT_TRUE(accepted);
  ASSERT_TRUE(listener->send(accepted->connection, numbered(1)));
  listener->close(accepted->connection);
  EXPECT_EQ(listener->send(accepted->connection, numbered(2)).error().code, Errc::kUnavailable);
  EXPECT_TRUE(await(*connector, Kind::kFrame));  // the last word arrives
  EXPECT_TRUE(await(*connector, Kind::kClosed));
  EXPECT_TRUE(await(*connector, Kind::kOpened));  // a connector tries again
  EXPECT_TRUE(await(*listener, Kind::kOpened));
}

enum class Wire { kIpc, kTcp, kCurve };

class ZmqWorld final : public CarrierWorld {
 public:
  explicit ZmqWorld(Wire wire) : wire_(wire) {}
  std::unique_ptr<Carrier> make(CarrierLimits limits) override {
    // One role for all: here every carrier may be either end.
    auto options = wire_ == Wire::kCurve ? keys_.as(keys_.router) : ZmqOptions{};
    options.limits = limits;
    return carrier(std::move(options));
  }
  Address address() override {
    if (wire_ != Wire::kIpc) return *parse_address("tcp://127.0.0.1:0");
    return *parse_address("ipc://" + (temp_ / (std::to_string(++last_) + ".ipc")).string());
  }

 private:
  Wire wire_;
  Keys keys_;
  test::TempDir temp_;
  int last_ = 0;
};

CarrierKind kind_of(const char* name, Wire wire) {
  return {name, [wire] { return std::make_unique<ZmqWorld>(wire); }};
}

INSTANTIATE_TEST_SUITE_P(Zmq, CarrierContractTest,
                         testing::Values(kind_of("Ipc", Wire::kIpc), kind_of("Tcp", Wire::kTcp),
                                         kind_of("TcpWithCurve", Wire::kCurve)),
                         kind_name);

}  // namespace
}  // namespace moesaic::transport
