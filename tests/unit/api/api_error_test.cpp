#include "common/api/api_error.hpp"

#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <set>
#include <string>

namespace moesaic {
namespace {

TEST(ApiErrorTest, CodesAreUniqueAndStatusesAreErrors) {
  std::set<std::string_view> texts;
  for (const auto& kind : api_error_kinds()) {
    EXPECT_TRUE(texts.insert(kind.text).second) << kind.text;
    EXPECT_TRUE(kind.status >= 400 && kind.status < 600) << kind.text;
    EXPECT_EQ(kind.type == "invalid_request_error" || kind.text == "request_timeout",
              kind.status < 500)
        << kind.text;
  }
}

TEST(ApiErrorTest, WritesTheOneShape) {
  ApiError error{ApiCode::kContextLengthExceeded, "too \"long\"", "messages"};
  error.extra = {{"n_prompt_tokens", 9}, {"n_ctx", 8}};
  const auto body = boost::json::parse(error_json(error));
  const auto expected = boost::json::parse(
      R"({"error":{"message":"too \"long\"","type":"invalid_request_error","param":"messages",
          "code":"context_length_exceeded","n_prompt_tokens":9,"n_ctx":8}})");
  EXPECT_EQ(body, expected);
}

TEST(ApiErrorTest, ParamIsNullWhereThereIsNone) {
  const auto body = boost::json::parse(error_json({ApiCode::kInvalidJson, "x", {}}));
  EXPECT_TRUE(body.at("error").at("param").is_null());
}

TEST(ApiErrorTest, OverloadSaysWhenToComeBack) {
  const auto answer = error_answer(to_api_error(Error{Errc::kOverloaded, "queue of 8 full"}));
  EXPECT_EQ(answer.status, 503U);
  EXPECT_EQ(answer.headers.find("Retry-After"), "1");
}

TEST(ApiErrorTest, InnerTextsStayInside) {
  for (const auto code :
       {Errc::kInternal, Errc::kIo, Errc::kNotFound, Errc::kShapeMismatch, Errc::kUnavailable,
        Errc::kCorrupt, Errc::kUnsupported, Errc::kOverloaded, Errc::kTooLarge,
        Errc::kDeadlineExceeded, Errc::kCancelled, Errc::kExpertUnavailable}) {
    const auto error = to_api_error(Error{code, "shard-3 at 0x7ffdeadbeef"});
    EXPECT_EQ(error_json(error).find("0x7ffd"), std::string::npos) << static_cast<int>(code);
  }
}

TEST(ApiErrorTest, AMissingExpertIs503WithItsOwnCode) {
  const auto answer = error_answer(to_api_error(Error{Errc::kExpertUnavailable, "shard-1"}));
  EXPECT_EQ(answer.status, 503U);
  EXPECT_NE(answer.body.find("expert_shard_unavailable"), std::string::npos) << answer.body;
}

TEST(ApiErrorTest, FaultsOfTheServerHaveTheirRows) {
  EXPECT_EQ(error_answer(to_api_error(HttpFault{HttpFaultKind::kHeadersTooLarge, 16384})).status,
            431U);
  EXPECT_EQ(error_answer(to_api_error(HttpFault{HttpFaultKind::kBodyTooLarge, 64})).status, 413U);
  EXPECT_EQ(error_answer(to_api_error(HttpFault{HttpFaultKind::kUnknownUrl})).status, 404U);
  const auto wrong_method =
      error_answer(to_api_error(HttpFault{HttpFaultKind::kMethodNotAllowed, 0, "GET, HEAD"}));
  EXPECT_EQ(wrong_method.status, 405U);
  EXPECT_EQ(wrong_method.headers.find("allow"), "GET, HEAD");
}

}  // namespace
}  // namespace moesaic
