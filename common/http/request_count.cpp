#include "common/http/request_count.hpp"

#include <algorithm>
#include <array>

#include "common/metrics/metrics.hpp"

namespace moesaic::http_detail {
namespace {

constexpr std::array<std::string_view, 7> kMethods = {"GET",    "HEAD",    "POST", "PUT",
                                                      "DELETE", "OPTIONS", "PATCH"};

}  // namespace

RequestCount::RequestCount(std::string_view pattern, std::string_view method) {
  if (!pattern.empty()) route_ = pattern;
  if (std::find(kMethods.begin(), kMethods.end(), method) != kMethods.end()) method_ = method;
}

void RequestCount::answered(unsigned status) const {
  metrics::counter("moesaic_http_requests_total",
                   {{"route", route_}, {"method", method_}, {"status", std::to_string(status)}})
      .add();
}

}  // namespace moesaic::http_detail
