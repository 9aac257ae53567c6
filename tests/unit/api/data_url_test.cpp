#include "common/api/data_url.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace moesaic {
namespace {

TEST(DataUrlTest, LooksPastTheMediaType) {
  for (const char* url : {"data:image/png;base64,Zm9v", "data:;base64,Zm9v", "DATA:x/y;BASE64,Zm9v",
                          "data:image/svg+xml;charset=utf-8;base64,Zm9v"}) {
    const auto got = decode_data_url(url, 3);
    ASSERT_TRUE(got) << url;
    EXPECT_EQ(*got, "foo");
  }
}

TEST(DataUrlTest, TellsWhatIsWrong) {
  const std::vector<std::pair<std::string, Errc>> cases = {
      {"", Errc::kUnsupported},
      {"data", Errc::kUnsupported},
      {"data:", Errc::kUnsupported},
      {"data:,Zm9v", Errc::kUnsupported},
      {"data:base64,Zm9v", Errc::kUnsupported},
      {"data:image/png;base64", Errc::kUnsupported},
      {"data:image/png;base64;x,Zm9v", Errc::kUnsupported},
      {"http://host/x;base64,Zm9v", Errc::kUnsupported},
      {"data:image/png;base64,Zm9", Errc::kInvalidArgument},
      {"data:image/png;base64,Zm9vZg==", Errc::kTooLarge},
      {"data:image/png;base64,Zm9vZm9v", Errc::kTooLarge},
      {"data:image/png;base64,!!!!!!!!!!!!", Errc::kTooLarge},
  };
  for (const auto& [url, code] : cases) {
    const auto got = decode_data_url(url, 3);
    ASSERT_FALSE(got) << url;
    EXPECT_EQ(got.error().code, code) << url;
  }
}

}  // namespace
}  // namespace moesaic
