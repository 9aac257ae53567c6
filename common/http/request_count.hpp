#pragma once

#include <string>
#include <string_view>

/// Inside of common/http: not for others.
namespace moesaic::http_detail {

/// Where one request counts in moesaic_http_requests_total. What a client may invent (paths,
/// methods) becomes "other", so that it cannot make series.
class RequestCount {
 public:
  /// Status of a request whose client left before an answer began.
  static constexpr unsigned kClientGone = 499;

  RequestCount() = default;
  /// @param pattern of the route; empty: none
  RequestCount(std::string_view pattern, std::string_view method);
  void answered(unsigned status) const;

 private:
  std::string route_ = "other";
  std::string method_ = "other";
};

}  // namespace moesaic::http_detail
