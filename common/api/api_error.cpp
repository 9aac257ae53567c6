#include "common/api/api_error.hpp"

#include <array>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cassert>

namespace moesaic {
namespace {

constexpr std::string_view kBadRequest = "invalid_request_error";
constexpr std::string_view kUnavailable = "unavailable_error";

constexpr std::array kKinds = {
    ApiErrorKind{ApiCode::kInvalidJson, 400, kBadRequest, "invalid_json"},
    ApiErrorKind{ApiCode::kInvalidRequest, 400, kBadRequest, "invalid_request"},
    ApiErrorKind{ApiCode::kMissingRequiredParameter, 400, kBadRequest,
                 "missing_required_parameter"},
    ApiErrorKind{ApiCode::kUnsupportedParameter, 400, kBadRequest, "unsupported_parameter"},
    ApiErrorKind{ApiCode::kAmbiguousParameter, 400, kBadRequest, "ambiguous_parameter"},
    ApiErrorKind{ApiCode::kInvalidType, 400, kBadRequest, "invalid_type"},
    ApiErrorKind{ApiCode::kInvalidValue, 400, kBadRequest, "invalid_value"},
    ApiErrorKind{ApiCode::kModelNotFound, 404, kBadRequest, "model_not_found"},
    ApiErrorKind{ApiCode::kContextLengthExceeded, 400, kBadRequest, "context_length_exceeded"},
    ApiErrorKind{ApiCode::kTooManyImages, 400, kBadRequest, "too_many_images"},
    ApiErrorKind{ApiCode::kTooManyFrames, 400, kBadRequest, "too_many_frames"},
    ApiErrorKind{ApiCode::kImageTooLarge, 400, kBadRequest, "image_too_large"},
    ApiErrorKind{ApiCode::kInvalidImage, 400, kBadRequest, "invalid_image"},
    ApiErrorKind{ApiCode::kInvalidImageUrl, 400, kBadRequest, "invalid_image_url"},
    ApiErrorKind{ApiCode::kUnsupportedModality, 400, kBadRequest, "unsupported_modality"},
    ApiErrorKind{ApiCode::kUnknownUrl, 404, kBadRequest, "unknown_url"},
    ApiErrorKind{ApiCode::kMethodNotAllowed, 405, kBadRequest, "method_not_allowed"},
    ApiErrorKind{ApiCode::kRequestTimeout, 408, "timeout_error", "request_timeout"},
    ApiErrorKind{ApiCode::kRequestTooLarge, 413, kBadRequest, "request_too_large"},
    ApiErrorKind{ApiCode::kHeadersTooLarge, 431, kBadRequest, "headers_too_large"},
    ApiErrorKind{ApiCode::kUnsupportedMediaType, 415, kBadRequest, "unsupported_media_type"},
    ApiErrorKind{ApiCode::kServerOverloaded, 503, "overloaded_error", "server_overloaded"},
    ApiErrorKind{ApiCode::kLoading, 503, kUnavailable, "loading"},
    ApiErrorKind{ApiCode::kDraining, 503, kUnavailable, "draining"},
    ApiErrorKind{ApiCode::kQueueTimeout, 504, "timeout_error", "queue_timeout"},
    ApiErrorKind{ApiCode::kExpertShardUnavailable, 503, kUnavailable, "expert_shard_unavailable"},
    ApiErrorKind{ApiCode::kInternalError, 500, "server_error", "internal_error"},
};

constexpr bool in_order() {
  for (std::size_t i = 0; i < kKinds.size(); ++i) {
    if (kKinds[i].code != static_cast<ApiCode>(i)) return false;
  }
  return kKinds.back().code == ApiCode::kInternalError;
}
static_assert(in_order());

constexpr unsigned kRetryAfterDefault = 1;  // seconds

ApiError plain(ApiCode code, std::string message) { return {code, std::move(message), {}}; }

ApiError retriable(ApiCode code, std::string message) {
  auto error = plain(code, std::move(message));
  error.retry_after_s = kRetryAfterDefault;
  return error;
}

}  // namespace

std::span<const ApiErrorKind> api_error_kinds() { return kKinds; }

const ApiErrorKind& kind_of(ApiCode code) {
  assert(static_cast<std::size_t>(code) < kKinds.size());
  return kKinds[static_cast<std::size_t>(code)];
}

tl::unexpected<ApiError> api_fail(ApiCode code, std::string message,
                                  std::optional<std::string> param) {
  return tl::make_unexpected(ApiError{code, std::move(message), std::move(param)});
}

ApiError to_api_error(const Error& error) {
  switch (error.code) {
    case Errc::kInvalidArgument:
      return plain(ApiCode::kInvalidValue, error.what);
    case Errc::kContextLength:
      return {ApiCode::kContextLengthExceeded, error.what, "messages"};
    // Only the vision encoder answers with these three.
    case Errc::kCorrupt:
    case Errc::kUnsupported:
      return {ApiCode::kInvalidImage, "an image cannot be decoded: JPEG, PNG or WebP is expected",
              "messages"};
    case Errc::kTooLarge:
      return {ApiCode::kImageTooLarge, "an image is larger than the limit", "messages"};
    case Errc::kOverloaded:
      return retriable(ApiCode::kServerOverloaded, "the server has no room for another request");
    case Errc::kDeadlineExceeded:
      return plain(ApiCode::kQueueTimeout, "the request was not finished within its time limit");
    case Errc::kUnavailable:
    case Errc::kExpertUnavailable:
      return retriable(ApiCode::kExpertShardUnavailable,
                       "a part of the server that this request needs is not available");
    case Errc::kCancelled:
      return retriable(ApiCode::kDraining, "the request was cancelled by the server");
    case Errc::kNotFound:
    case Errc::kShapeMismatch:
    case Errc::kIo:
    case Errc::kInternal:
      break;
  }
  return plain(ApiCode::kInternalError, "internal error; please report the request id");
}

ApiError to_api_error(const HttpFault& fault) {
  const auto limit = std::to_string(fault.limit);
  switch (fault.kind) {
    case HttpFaultKind::kMalformed:
      return plain(ApiCode::kInvalidRequest, "not a well-formed HTTP/1.1 request");
    case HttpFaultKind::kHeadersTooLarge:
      return plain(ApiCode::kHeadersTooLarge, "request line and headers exceed the limit of " +
                                                  limit + " bytes (setting limits.header_bytes)");
    case HttpFaultKind::kBodyTooLarge:
      return plain(ApiCode::kRequestTooLarge,
                   "the body exceeds the limit of " + limit + " bytes (setting limits.body_bytes)");
    case HttpFaultKind::kTimeout:
      return plain(ApiCode::kRequestTimeout, "the request did not arrive in time");
    case HttpFaultKind::kOverloaded:
      return retriable(ApiCode::kServerOverloaded, "the server has no room for another request");
    case HttpFaultKind::kUnknownUrl:
      return plain(ApiCode::kUnknownUrl, "no such URL; the API lies under /v1/");
    case HttpFaultKind::kMethodNotAllowed: {
      auto error = plain(ApiCode::kMethodNotAllowed, "this URL takes " + fault.allow);
      error.allow = fault.allow;
      return error;
    }
    case HttpFaultKind::kInternal:
      break;
  }
  return plain(ApiCode::kInternalError, "internal error; please report the request id");
}

std::string error_json(const ApiError& error) {
  const auto& kind = kind_of(error.code);
  boost::json::object body{
      {"message", error.message}, {"type", kind.type}, {"param", nullptr}, {"code", kind.text}};
  if (error.param) body["param"] = *error.param;
  for (const auto& [name, value] : error.extra) body[name] = value;
  return boost::json::serialize(boost::json::object{{"error", std::move(body)}});
}

HttpAnswer error_answer(const ApiError& error) {
  HttpAnswer answer{kind_of(error.code).status, {{"Content-Type", "application/json"}}, {}};
  if (error.retry_after_s > 0) {
    answer.headers.add("Retry-After", std::to_string(error.retry_after_s));
  }
  if (!error.allow.empty()) answer.headers.add("Allow", error.allow);
  answer.body = error_json(error);
  return answer;
}

}  // namespace moesaic
