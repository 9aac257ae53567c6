#include "common/http/router.hpp"

#include <utility>

namespace moesaic {

void HttpRouter::add(std::string method, std::string pattern, HttpHandler handler) {
  const auto brace = pattern.find('{');
  auto path = pattern.substr(0, brace);
  routes_.push_back({std::move(method), std::move(pattern), std::move(path),
                     brace != std::string::npos, std::move(handler)});
}

HttpRouter::Match HttpRouter::find(std::string_view method, std::string_view path) const {
  const auto looked_up = method == "HEAD" ? std::string_view("GET") : method;
  for (const bool wildcard : {false, true}) {
    Match match;
    for (const auto& route : routes_) {
      const bool fits = route.wildcard == wildcard &&
                        (wildcard ? path.size() > route.path.size() && path.starts_with(route.path)
                                  : path == route.path);
      if (!fits) continue;
      if (!match.allow.empty()) match.allow += ", ";
      match.allow += route.method == "GET" ? "GET, HEAD" : route.method;
      if (route.method == looked_up) {
        match.handler = &route.handler;
        match.pattern = route.pattern;
        if (wildcard) match.wildcard = path.substr(route.path.size());
      }
    }
    if (!match.allow.empty()) return match;
  }
  return {};
}

}  // namespace moesaic
