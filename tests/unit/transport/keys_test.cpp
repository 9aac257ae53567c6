#include "common/transport/keys.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "common/transport/key_folder.hpp"
#include "tests/support/temp_dir.hpp"

namespace moesaic::transport {
namespace {

using testing::HasSubstr;

mode_t mode_of(const std::filesystem::path& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? status.st_mode & 0777 : 0;
}

void append(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::app) << text;
}

class KeyRingTest : public testing::Test {
 protected:
  std::string make(const std::string& role, const std::string& name, bool rotate = false) {
    auto key = make_key(folder_, role, name, rotate);
    EXPECT_TRUE(key) << key.error().what;
    return key.value_or("");
  }
  test::TempDir temp_;
  std::filesystem::path folder_ = temp_ / "keys";
};

TEST_F(KeyRingTest, MakesFilesThatOnlyTheOwnerReads) {
  make("router", "router-0");
  EXPECT_EQ(mode_of(folder_), 0700U);
  EXPECT_EQ(mode_of(folder_ / "router-router-0.secret"), 0600U);
  EXPECT_EQ(mode_of(folder_ / "known_keys"), 0644U);
}

TEST_F(KeyRingTest, LoadsItsOwnPairAndWhomItAdmits) {
  const auto router = make("router", "router-0");
  const auto shard = make("expert-shard", "shard.1");
  const auto ring = KeyRing::load(folder_, "router", "router-0");
  ASSERT_TRUE(ring) << ring.error().what;
  EXPECT_EQ(ring->own().public_key, router);
  EXPECT_EQ(ring->own().secret_key.size(), 40U);
  EXPECT_EQ(ring->owner_of(shard), "expert-shard/shard.1");
  EXPECT_EQ(ring->key_of("expert-shard", "shard.1"), shard);
  EXPECT_EQ(ring->owner_of(make_key_pair().public_key), "");
  EXPECT_EQ(ring->key_of("expert-shard", "shard.2"), "");
}

TEST_F(KeyRingTest, RotationKeepsTwoKeysValidUntilTheOldOneIsRetired) {
  const auto old_key = make("decoder", "d");
  const auto other = make("decoder", "e");
  const auto new_key = make("decoder", "d", true);
  ASSERT_NE(old_key, new_key);
  auto ring = KeyRing::load(folder_, "decoder", "d");
  ASSERT_TRUE(ring);
  EXPECT_EQ(ring->own().public_key, new_key);
  EXPECT_EQ(ring->owner_of(old_key), "decoder/d");
  EXPECT_EQ(ring->owner_of(new_key), "decoder/d");
  EXPECT_EQ(ring->key_of("decoder", "d"), new_key);

  EXPECT_EQ(retire_keys(folder_, "decoder", "d").value_or(0), 1U);
  ring = KeyRing::load(folder_, "decoder", "d");
  ASSERT_TRUE(ring);
  EXPECT_EQ(ring->owner_of(old_key), "");
  EXPECT_EQ(ring->owner_of(new_key), "decoder/d");
  EXPECT_EQ(ring->owner_of(other), "decoder/e");
}

TEST_F(KeyRingTest, AThirdKeyNeedsTheFirstRetired) {
  make("decoder", "d");
  make("decoder", "d", true);
  const auto third = make_key(folder_, "decoder", "d", true);
  ASSERT_FALSE(third);
  EXPECT_THAT(third.error().what, HasSubstr("retire"));
}

TEST_F(KeyRingTest, DoesNotOverwriteUnlessAsked) {
  const auto key = make("gateway", "g");
  const auto again = make_key(folder_, "gateway", "g", false);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, Errc::kInvalidArgument);
  EXPECT_THAT(again.error().what, HasSubstr("gateway/g"));
  EXPECT_EQ(KeyRing::load(folder_, "gateway", "g")->own().public_key, key);
}

TEST_F(KeyRingTest, ASecretOthersMayReadIsRefused) {
  make("gateway", "g");
  std::filesystem::permissions(folder_ / "gateway-g.secret", std::filesystem::perms(0640));
  const auto ring = KeyRing::load(folder_, "gateway", "g");
  ASSERT_FALSE(ring);
  EXPECT_EQ(ring.error().code, Errc::kInvalidArgument);
  EXPECT_THAT(ring.error().what, HasSubstr("0640"));
}

TEST_F(KeyRingTest, ASecretOfRootsForTheProcesssGroupIsRead) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to be somebody else";
  constexpr uid_t kUser = 12345;
  make("gateway", "g");
  const auto secret = folder_ / "gateway-g.secret";
  ASSERT_EQ(::chmod(temp_.path().c_str(), 0755), 0);
  ASSERT_EQ(::chmod(folder_.c_str(), 0755), 0);
  const auto load_with_mode = [&](mode_t mode, gid_t group) {
    EXPECT_EQ(::chown(secret.c_str(), 0, group), 0);
    EXPECT_EQ(::chmod(secret.c_str(), mode), 0);
    EXPECT_EQ(::setegid(kUser), 0);
    EXPECT_EQ(::seteuid(kUser), 0);
    const auto ring = KeyRing::load(folder_, "gateway", "g");
    EXPECT_EQ(::seteuid(0), 0);
    EXPECT_EQ(::setegid(0), 0);
    return ring.has_value();
  };
  EXPECT_TRUE(load_with_mode(0440, kUser));
  EXPECT_FALSE(load_with_mode(0460, kUser));
  EXPECT_FALSE(load_with_mode(0444, kUser));
  EXPECT_FALSE(load_with_mode(0444, 0));
}

TEST_F(KeyRingTest, AFolderOpenToOthersGetsNoKeys) {
  std::filesystem::create_directory(folder_);
  std::filesystem::permissions(folder_, std::filesystem::perms(0755));
  EXPECT_FALSE(make_key(folder_, "gateway", "g", false));
}

TEST_F(KeyRingTest, DamagedFilesAreNamedWithTheirLine) {
  make("gateway", "g");
  const auto good = make_key_pair().public_key;
  for (const auto& line :
       {std::string("gateway g short"), "gateway g " + good + " more", "king g " + good,
        "gateway G " + good, std::string("gateway"), "gateway g " + good + "\ngateway h " + good}) {
    test::TempDir other;
    std::filesystem::copy(folder_, other.path(), std::filesystem::copy_options::recursive);
    append(other / "known_keys", line + "\n");
    const auto ring = KeyRing::load(other.path(), "gateway", "g");
    ASSERT_FALSE(ring) << line;
    EXPECT_EQ(ring.error().code, Errc::kCorrupt) << line;
    EXPECT_THAT(ring.error().what,
                HasSubstr(line.find('\n') == std::string::npos ? "known_keys:3" : "known_keys:4"));
  }
}

TEST_F(KeyRingTest, ASecretThatIsNotThePublicKeysOneIsCorrupt) {
  make("gateway", "g");
  make("gateway", "h");
  const auto secret = [&](const char* name) {
    return folder_ / ("gateway-" + std::string(name) + ".secret");
  };
  std::string first, second;
  std::ifstream(secret("g")) >> first;
  std::ifstream in(secret("h"));
  in >> second >> second;
  std::ofstream(secret("g")) << first << '\n' << second << '\n';
  const auto ring = KeyRing::load(folder_, "gateway", "g");
  ASSERT_FALSE(ring);
  EXPECT_EQ(ring.error().code, Errc::kCorrupt);
  std::ofstream(secret("g")) << "nonsense\n";
  EXPECT_EQ(KeyRing::load(folder_, "gateway", "g").error().code, Errc::kCorrupt);
}

TEST_F(KeyRingTest, OwnersOutsideTheProductAreRefused) {
  for (const auto& [role, name] :
       std::vector<std::pair<std::string, std::string>>{{"shard", "a"},
                                                        {"", "a"},
                                                        {"router", ""},
                                                        {"router", "../x"},
                                                        {"router", "A"},
                                                        {"router", std::string(65, 'a')}})
    EXPECT_FALSE(make_key(folder_, role, name, false)) << role << "/" << name;
}

}  // namespace
}  // namespace moesaic::transport
