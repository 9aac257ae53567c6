#include "common/http/admin_server.hpp"

#include <utility>

#include "common/base/version.hpp"
#include "common/http/metrics_route.hpp"

namespace moesaic {
namespace {

HttpAnswer json(std::string body, unsigned status = 200) {
  return {status, {{"Content-Type", "application/json"}}, std::move(body)};
}

HttpAnswer refusal(const HttpFault& fault) {
  struct Words {
    unsigned status;
    std::string_view text;
  };
  const auto words = [&]() -> Words {
    switch (fault.kind) {
      case HttpFaultKind::kMalformed:
        return {400, "not an HTTP/1.x request"};
      case HttpFaultKind::kHeadersTooLarge:
        return {431, "headers too large"};
      case HttpFaultKind::kBodyTooLarge:
        return {413, "body too large"};
      case HttpFaultKind::kTimeout:
        return {408, "the request did not come in time"};
      case HttpFaultKind::kOverloaded:
        return {503, "too many connections"};
      case HttpFaultKind::kUnknownUrl:
        return {404, "no such path"};
      case HttpFaultKind::kMethodNotAllowed:
        return {405, "method not allowed"};
      case HttpFaultKind::kInternal:
        break;
    }
    return {500, "internal error"};
  }();
  auto answer = json(R"({"error":")" + std::string(words.text) + R"("})", words.status);
  if (!fault.allow.empty()) answer.headers.add("Allow", fault.allow);
  return answer;
}

HttpAnswer ready_answer(const Readiness& readiness) {
  auto body = std::string(R"({"ready":)") + (readiness.ready ? "true" : "false");
  if (!readiness.detail_json.empty()) body += R"(,"detail":)" + readiness.detail_json;
  return json(body + "}", readiness.ready ? 200 : 503);
}

}  // namespace

Result<std::unique_ptr<AdminServer>> AdminServer::start(const std::string& host, std::uint16_t port,
                                                        AdminParts parts) {
  HttpServerConfig config;
  config.host = host;
  config.host_key = "admin.host";
  config.allow_any_host = parts.allow_any_host;
  config.port = port;
  config.connection_limit = 128;
  config.body_limit = 1 << 20;

  HttpRouter router;
  router.add("GET", "/health", [](const HttpRequest&, const std::shared_ptr<Responder>& responder) {
    responder->send(json(R"({"status":"ok"})"));
  });
  router.add(
      "GET", "/ready",
      [ready = parts.ready](const HttpRequest&, const std::shared_ptr<Responder>& responder) {
        responder->send(ready_answer(ready()));
      });
  router.add("GET", "/version",
             [](const HttpRequest&, const std::shared_ptr<Responder>& responder) {
               responder->send(json(std::string(R"({"version":")") + kVersion + R"(","git_id":")" +
                                    kGitId + R"(","build":")" + kBuild + R"("})"));
             });
  add_metrics_route(router, [ready = parts.ready] { return ready().ready; });
  if (parts.add_routes) parts.add_routes(router);
  MOESAIC_TRY(auto server, HttpServer::start(std::move(config), std::move(router), &refusal));
  return std::unique_ptr<AdminServer>(new AdminServer(host, std::move(server)));
}

std::string AdminServer::url() const {
  const bool v6 = host_.find(':') != std::string::npos;
  return "http://" + (v6 ? "[" + host_ + "]" : host_) + ":" + std::to_string(port());
}

}  // namespace moesaic
