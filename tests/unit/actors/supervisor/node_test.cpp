#include "actors/supervisor/node.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/keys.hpp"
#include "common/http/client.hpp"

namespace moesaic {
namespace {

using testing::HasSubstr;
using testing::Not;

class NodeTest : public testing::Test {
 protected:
  NodeTest()
      : keys_(select_keys({"node", "admin", "transport", "router.endpoints", "trace"},
                          {{"router.endpoints", "router-0=tcp://127.0.0.1:1"}})),
        settings_(keys_),
        node_(*Node::open(settings_, "vision-encoder", "a model")) {}

  HttpAnswer get(const std::string& path) {
    const auto lines = node_->describe();
    const auto url = lines.substr(lines.rfind("http://"));
    HttpClient client;
    auto answer = client.request("GET", url.substr(0, url.find('\n')) + path, "", {},
                                 std::chrono::seconds(10));
    EXPECT_TRUE(answer) << answer.error().what;
    return answer ? *answer : HttpAnswer{};
  }

  std::vector<SettingSpec> keys_;
  Settings settings_;
  std::unique_ptr<Node> node_;
};

TEST_F(NodeTest, ReadyTellsHowFarLoadingIsBeforeTheNodeJoins) {
  ASSERT_TRUE(node_->announce(settings_));
  EXPECT_EQ(get("/health").status, 200U);
  auto answer = get("/ready");
  EXPECT_EQ(answer.status, 503U);
  EXPECT_THAT(answer.body, HasSubstr(R"("reason":"loading")"));
  EXPECT_THAT(answer.body, Not(HasSubstr("total_bytes")));

  node_->load_state().set(500, 2000, "vision tower");
  answer = get("/ready");
  EXPECT_EQ(answer.status, 503U);
  EXPECT_THAT(answer.body, HasSubstr(R"("role":"vision-encoder")"));
  EXPECT_THAT(answer.body, HasSubstr(R"("loading":{"bytes":500,"total_bytes":2000,)"));
  EXPECT_THAT(answer.body, HasSubstr(R"("what":"vision tower")"));

  // On the same port afterwards, with its own reasons.
  node_->load_state().done();
  NodeMember member;
  std::atomic<bool> good = false;
  member.not_ready = [&]() -> std::optional<std::string> {
    return good ? std::nullopt : std::optional<std::string>("no placement yet");
  };
  ASSERT_TRUE(node_->join(settings_, std::move(member)));
  EXPECT_THAT(get("/ready").body, HasSubstr("no placement yet"));
  good = true;
  answer = get("/ready");
  EXPECT_EQ(answer.status, 200U);
  EXPECT_THAT(answer.body, Not(HasSubstr("loading")));
  node_.reset();
}

TEST_F(NodeTest, ExpertsThatAreLoadedLaterShowBesideTheReason) {
  NodeMember member;
  member.not_ready = [] { return std::optional<std::string>("no placement yet"); };
  member.add_routes = [](HttpRouter& router) {
    router.add("GET", "/experts", [](const HttpRequest&, std::shared_ptr<Responder> way) {
      way->send({200, {}, "experts"});
    });
  };
  ASSERT_TRUE(node_->join(settings_, std::move(member)));
  node_->load_state().set(1, 3, "experts of layer 2");
  const auto answer = get("/ready");
  EXPECT_THAT(answer.body, HasSubstr("no placement yet"));
  EXPECT_THAT(answer.body, HasSubstr("experts of layer 2"));
  EXPECT_EQ(get("/experts").body, "experts");
  node_.reset();
}

}  // namespace
}  // namespace moesaic
