#include "common/config/settings.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "tests/support/temp_dir.hpp"

namespace moesaic {
namespace {

using testing::HasSubstr;

constexpr SettingSpec kSpecs[] = {
    {"http.port", SettingSpec::Kind::kInteger, "8080", "port", 0, 65535, ""},
    {"http.host", SettingSpec::Kind::kText, "127.0.0.1", "address", 0, 0, ""},
    {"model.compute", SettingSpec::Kind::kChoice, "bf16", "precision", 0, 0, "f32|bf16"},
};

/// Tests run side by side, each in a process of its own.
std::filesystem::path write(const std::string& text) {
  static const test::TempDir dir;
  const auto path = dir / "settings_test.yaml";
  std::ofstream(path) << text;
  return path;
}

TEST(SettingsTest, LaterOriginsWin) {
  Settings settings(kSpecs);
  EXPECT_EQ(settings.integer("http.port"), 8080);
  ASSERT_TRUE(settings.load_file(write("http:\n  port: 1\n  host: ::1\n")));
  EXPECT_EQ(settings.integer("http.port"), 1);
  ::setenv("MOESAIC_HTTP_PORT", "2", 1);
  ASSERT_TRUE(settings.load_environment());
  ::unsetenv("MOESAIC_HTTP_PORT");
  EXPECT_EQ(settings.integer("http.port"), 2);
  ASSERT_TRUE(settings.set("http.port", "3", "flag"));
  EXPECT_EQ(settings.integer("http.port"), 3);
  EXPECT_EQ(settings.origin("http.port"), "flag");
  EXPECT_EQ(settings.text("http.host"), "::1");
  EXPECT_EQ(settings.origin("model.compute"), "default");
}

TEST(SettingsTest, BadInputNamesFileLineKeyFoundAndExpected) {
  struct Case {
    const char* yaml;
    std::vector<const char*> parts;
  };
  const Case cases[] = {
      {"http:\n  prot: 1\n", {":2", "http.prot", "did you mean \"http.port\""}},
      {"http:\n  port: 65536\n", {":2", "http.port", "65536", "0 to 65535"}},
      {"http:\n  port: 80x\n", {"80x"}},
      {"http: {port: -1}\n", {"-1"}},
      {"model: {compute: f16}\n", {"model.compute", "f16", "f32|bf16"}},
      {"http: {port: [1, 2]}\n", {"http.port", "one value"}},
      {"just text\n", {"mapping"}},
      {"a: [\n", {"not YAML"}},
  };
  for (const auto& c : cases) {
    Settings settings(kSpecs);
    const auto done = settings.load_file(write(c.yaml));
    ASSERT_FALSE(done) << c.yaml;
    for (const auto* part : c.parts) EXPECT_THAT(done.error().what, HasSubstr(part));
    EXPECT_EQ(settings.integer("http.port"), 8080);
  }
  Settings settings(kSpecs);
  EXPECT_EQ(settings.load_file("/nonexistent.yaml").error().code, Errc::kIo);
}

TEST(SettingsTest, EmptyFileChangesNothing) {
  Settings settings(kSpecs);
  EXPECT_TRUE(settings.load_file(write("")));
  EXPECT_TRUE(settings.load_file(write("# only a comment\n")));
  EXPECT_EQ(settings.integer("http.port"), 8080);
}

TEST(SettingsTest, NamesOfAKeyFollowFromIt) {
  EXPECT_EQ(Settings::flag_name("kv.max_bytes"), "--kv-max-bytes");
  EXPECT_EQ(Settings::environment_name("kv.max_bytes"), "MOESAIC_KV_MAX_BYTES");
}

}  // namespace
}  // namespace moesaic
