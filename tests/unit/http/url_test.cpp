#include "common/http/url.hpp"

#include <gtest/gtest.h>

#include <tuple>
#include <vector>

namespace moesaic {
namespace {

TEST(HttpUrlTest, TakesUrlsApart) {
  const std::vector<std::tuple<std::string, std::string, int, std::string, std::string>> cases = {
      {"http://a", "a", 80, "/", "a:80"},
      {"http://a/", "a", 80, "/", "a:80"},
      {"http://a:2379/v3/kv/range?x=1#y", "a", 2379, "/v3/kv/range?x=1", "a:2379"},
      {"http://a?x", "a", 80, "/?x", "a:80"},
      {"http://10.0.0.1:65535#y", "10.0.0.1", 65535, "/", "10.0.0.1:65535"},
      {"http://[::1]:1/a:b@c", "::1", 1, "/a:b@c", "[::1]:1"},
      {"http://[fe80::1]", "fe80::1", 80, "/", "[fe80::1]:80"},
  };
  for (const auto& [text, host, port, target, authority] : cases) {
    const auto url = parse_http_url(text);
    ASSERT_TRUE(url) << text << ": " << url.error().what;
    EXPECT_EQ(url->host, host) << text;
    EXPECT_EQ(url->port, port) << text;
    EXPECT_EQ(url->target, target) << text;
    EXPECT_EQ(url->authority(), authority) << text;
  }
}

TEST(HttpUrlTest, RefusesWhatItCannotReach) {
  for (const char* text :
       {"http://", "http:///x", "http://:80", "http://a:", "http://a:0", "http://a:65536",
        "http://a:8x", "http://a:-1", "http://[::1", "http://[::1]80", "http://[]:80", "http://a b",
        "http://a/\r\nx: y", "http://a/\x7f", ""}) {
    const auto url = parse_http_url(text);
    EXPECT_FALSE(url) << text;
  }
  for (const char* text : {"https://a", "ftp://a", "a:80", "HTTP://a", "http://u:p@a"}) {
    const auto url = parse_http_url(text);
    ASSERT_FALSE(url) << text;
    EXPECT_EQ(url.error().code, Errc::kUnsupported) << text;
  }
}

}  // namespace
}  // namespace moesaic
