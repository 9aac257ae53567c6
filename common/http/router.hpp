#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/http/message.hpp"
#include "common/http/responder.hpp"

namespace moesaic {

/// Called on the io thread; must not block. Answers through the responder, now or later.
using HttpHandler = std::function<void(HttpRequest, std::shared_ptr<Responder>)>;

/// The table of routes. Filled before the server starts, read-only afterwards.
class HttpRouter {
 public:
  /// @param pattern a path, or one that ends in "/{name}", which matches any non-empty rest
  void add(std::string method, std::string pattern, HttpHandler handler);

  struct Match {
    const HttpHandler* handler = nullptr;  ///< null: see `allow`
    std::string_view pattern;              ///< as added; empty if no handler was found
    std::string wildcard;
    std::string allow;  ///< methods of that path, "GET, HEAD"; empty: no such path
  };
  /// HEAD finds the handler of GET. An exact path wins over a pattern.
  Match find(std::string_view method, std::string_view path) const;

 private:
  struct Route {
    std::string method;
    std::string pattern;
    std::string path;  ///< the pattern without "{name}"
    bool wildcard = false;
    HttpHandler handler;
  };
  std::vector<Route> routes_;
};

}  // namespace moesaic
