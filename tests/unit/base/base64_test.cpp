#include "common/base/base64.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace moesaic {
namespace {

TEST(Base64Test, CodesTheVectorsOfRfc4648) {
  const std::vector<std::pair<std::string, std::string>> vectors = {{"", ""},
                                                                    {"Zg==", "f"},
                                                                    {"Zm8=", "fo"},
                                                                    {"Zm9v", "foo"},
                                                                    {"Zm9vYg==", "foob"},
                                                                    {"Zm9vYmE=", "fooba"},
                                                                    {"Zm9vYmFy", "foobar"}};
  for (const auto& [text, bytes] : vectors) {
    const auto got = decode_base64(text);
    ASSERT_TRUE(got) << text;
    EXPECT_EQ(*got, bytes);
    EXPECT_EQ(encode_base64(bytes), text);
  }
  EXPECT_EQ(encode_base64("\xff\xff\xff"), "////");
  EXPECT_EQ(*decode_base64("////"), "\xff\xff\xff");
  EXPECT_EQ(*decode_base64("++++"), "\xfb\xef\xbe");
  EXPECT_EQ(*decode_base64("AAAA"), std::string(3, '\0'));
}

TEST(Base64Test, RefusesWhatIsNotStrictlyBase64) {
  for (const char* text :
       {"A", "AA", "AAA", "AAAAA", "=", "====", "A===", "AA=A", "=AAA", "AA==AAAA",
        "AB==", "AAB=", "AA A", "AAA\n", "AA-A", "AA_A", "@@@@", "AAA\xff"}) {
    const auto got = decode_base64(text);
    ASSERT_FALSE(got) << text;
    EXPECT_EQ(got.error().code, Errc::kInvalidArgument);
  }
}

}  // namespace
}  // namespace moesaic
