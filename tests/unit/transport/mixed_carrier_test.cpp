#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "common/transport/carriers.hpp"
#include "tests/support/temp_dir.hpp"
#include "tests/unit/transport/carrier_contract.hpp"

namespace moesaic::transport {
namespace {

using Kind = CarrierEvent::Kind;

/// Carriers that use one scheme for the claims and, if `beside` is given, listen there, too, so
/// that both ways to wait are in use.
class MixedWorld final : public CarrierWorld {
 public:
  MixedWorld(std::string scheme, std::string beside)
      : scheme_(std::move(scheme)), beside_(std::move(beside)) {}
  std::unique_ptr<Carrier> make(CarrierLimits limits) override {
    ZmqOptions options;
    options.limits = limits;
    auto carrier = make_carrier(std::move(options));
    EXPECT_TRUE(carrier) << carrier.error().what;
    if (!beside_.empty()) {
      EXPECT_TRUE((*carrier)->listen(path(beside_)));
    }
    return std::move(*carrier);
  }
  Address address() override { return path(scheme_); }

 private:
  Address path(const std::string& scheme) {
    return *parse_address(scheme + "://" + (temp_ / ("s" + std::to_string(++last_))).string());
  }
  std::string scheme_, beside_;
  test::TempDir temp_;
  int last_ = 0;
};

CarrierKind kind_of(const char* name, const char* scheme, const char* beside) {
  return {name, [=] { return std::make_unique<MixedWorld>(scheme, beside); }};
}

INSTANTIATE_TEST_SUITE_P(Mixed, CarrierContractTest,
                         testing::Values(kind_of("ShmAlone", "shm", ""),
                                         kind_of("IpcAlone", "ipc", ""),
                                         kind_of("ShmBesideIpc", "shm", "ipc"),
                                         kind_of("IpcBesideShm", "ipc", "shm")),
                         kind_name);

TEST(MixedCarrierTest, OneReceiveServesEveryWire) {
  test::TempDir temp;
  auto listener = std::move(*make_carrier({}));
  auto connector = std::move(*make_carrier({}));
  std::set<ConnectionId> made;
  for (const auto& text : {"shm://" + (temp / "a").string(), "ipc://" + (temp / "b").string(),
                           std::string("tcp://127.0.0.1:0")}) {
    const auto bound = listener->listen(*parse_address(text));
    ASSERT_TRUE(bound) << bound.error().what;
    const auto connection = connector->connect(*bound);
    ASSERT_TRUE(connection) << connection.error().what;
    made.insert(*connection);
  }
  EXPECT_EQ(made.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto opened = next_event(*connector);
    ASSERT_EQ(opened.kind, Kind::kOpened);
    EXPECT_TRUE(made.contains(opened.connection));
  }
  for (const auto connection : made) {
    Frame frame;
    frame.sequence = connection;
    ASSERT_TRUE(connector->send(connection, std::move(frame)));
    auto asked = next_of(*listener, Kind::kFrame);
    ASSERT_TRUE(listener->send(asked.connection, std::move(asked.frame)));
    const auto answer = next_of(*connector, Kind::kFrame);
    EXPECT_EQ(answer.connection, connection);
    EXPECT_EQ(answer.frame.sequence, connection);
  }
}

TEST(MixedCarrierTest, AnAddressInsideTheProcessIsRefused) {
  auto carrier = std::move(*make_carrier({}));
  const auto refused = carrier->connect(*parse_address("inproc://shard"));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kUnsupported);
}

}  // namespace
}  // namespace moesaic::transport
