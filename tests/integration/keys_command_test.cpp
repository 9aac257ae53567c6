#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/run_program.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;

class KeysCommandTest : public testing::Test {
 protected:
  test::Finished keys(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "keys");
    arguments.insert(arguments.end(), {"--dir", (temp_ / "keys").string()});
    return test::run_program("moesaic", arguments);
  }
  test::TempDir temp_;
};

TEST_F(KeysCommandTest, AClustersKeysAreMadeAndListed) {
  const auto made = keys({"make-all", "gateway/gateway-0", "router/router-0"});
  EXPECT_EQ(made.status, 0) << made.err;
  const auto listed = keys({"list"});
  EXPECT_EQ(listed.status, 0) << listed.err;
  EXPECT_EQ(listed.out, made.out);
  // Role, name and 40 characters.
  EXPECT_THAT(listed.out,
              MatchesRegex("gateway gateway-0 [^ \n]{40}\nrouter router-0 [^ \n]{40}\n"));
}

TEST_F(KeysCommandTest, RotationNeedsTheWordAndEndsWithRetire) {
  const std::vector<std::string> owner{"--role", "decoder", "--name", "d"};
  const auto with = [&](std::vector<std::string> words) {
    words.insert(words.end(), owner.begin(), owner.end());
    return keys(std::move(words));
  };
  ASSERT_EQ(with({"make"}).status, 0);
  const auto again = with({"make"});
  EXPECT_EQ(again.status, 3);
  EXPECT_THAT(again.err, HasSubstr("--rotate"));
  ASSERT_EQ(with({"make", "--rotate"}).status, 0);
  const auto two = keys({"list"}).out;
  EXPECT_EQ(std::count(two.begin(), two.end(), '\n'), 2);
  EXPECT_EQ(with({"retire"}).status, 0);
  EXPECT_EQ(keys({"list"}).out, two.substr(two.find('\n') + 1));
}

TEST_F(KeysCommandTest, SecretsAreNotPrinted) {
  const auto made = keys({"make", "--role", "tool", "--name", "t"});
  std::ifstream file(temp_ / "keys/tool-t.secret");
  std::string secret;
  std::getline(file, secret);
  ASSERT_EQ(secret.size(), 40U);
  EXPECT_EQ((made.out + made.err).find(secret), std::string::npos);
}

TEST_F(KeysCommandTest, BadWordsAreNamed) {
  for (const auto& owner : {"king/a", "router", "router/A"}) {
    const auto refused = keys({"make-all", owner});
    EXPECT_EQ(refused.status, 3) << owner;
    EXPECT_FALSE(refused.err.empty());
  }
  EXPECT_EQ(keys({"list"}).status, 3);  // there is no such folder
  EXPECT_EQ(keys({"make"}).status, 2);
}

}  // namespace
}  // namespace moesaic
