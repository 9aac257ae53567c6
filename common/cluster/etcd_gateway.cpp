#include "common/cluster/etcd_gateway.hpp"

#include <algorithm>
#include <utility>

namespace moesaic::cluster::etcd {
namespace {

const HttpHeaders& headers() {
  static const HttpHeaders kHeaders{{"Content-Type", "application/json"}};
  return kHeaders;
}

constexpr unsigned kServerTrouble = 500;  // and above: another endpoint may be well

}  // namespace

Gateway::Gateway(std::vector<std::string> endpoints, std::chrono::milliseconds patience)
    : endpoints_(std::move(endpoints)), patience_(patience) {
  for (auto& endpoint : endpoints_) endpoint.erase(endpoint.find_last_not_of('/') + 1);
}

std::string Gateway::url(std::string_view path) const {
  return endpoints_[current_] + std::string(path);
}

Result<std::string> Gateway::post(std::string_view path, std::string_view body,
                                  Clock::time_point deadline) {
  Error last{Errc::kUnavailable, "etcd: no endpoints are configured"};
  for (std::size_t tries = 0; tries < endpoints_.size(); ++tries) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0) {
      if (tries > 0) return fail("etcd", last);
      return fail(Errc::kDeadlineExceeded, "etcd: no time left to ask " + url(path));
    }
    auto answer = client_.request("POST", url(path), body, headers(), std::min(patience_, left));
    if (answer && answer->status < kServerTrouble) return std::move(answer->body);
    last = answer
               ? Error{Errc::kUnavailable, url(path) + ": HTTP " + std::to_string(answer->status)}
               : answer.error();
    if (last.code == Errc::kCancelled) break;
    next();
  }
  return tl::make_unexpected(std::move(last));
}

Result<void> Gateway::follow(std::string_view path, std::string_view body,
                             std::chrono::milliseconds silence,
                             const HttpClient::LineSink& on_line) {
  if (endpoints_.empty()) return fail(Errc::kUnavailable, "etcd: no endpoints are configured");
  auto result = client_.stream(url(path), body, headers(), patience_, silence, on_line);
  if (!result && result.error().code != Errc::kDeadlineExceeded) next();
  return result;
}

}  // namespace moesaic::cluster::etcd
