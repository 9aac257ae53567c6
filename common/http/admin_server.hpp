#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/base/result.hpp"
#include "common/http/server.hpp"

namespace moesaic {

struct Readiness {
  bool ready = false;
  std::string detail_json;  ///< an object with what stands in the way, or what serves; empty: none
};

/// What an admin server tells; every function runs on its io thread and must not block.
struct AdminParts {
  std::function<Readiness()> ready;
  std::function<void(HttpRouter&)> add_routes;  ///< further routes; may be null
  bool allow_any_host = false;                  ///< as HttpServerConfig
};

/// The port that operators, Prometheus and probes ask, on every service: GET /health (200 while the
/// process lives), /ready (200 or 503, {"ready": bool, "detail": {..}}), /metrics, /version. Owned
/// by main; never blocks for long, so it answers while the model loads.
class AdminServer {
 public:
  /// @param port 0: the system chooses
  /// @errors as HttpServer::start
  [[nodiscard]] static Result<std::unique_ptr<AdminServer>> start(const std::string& host,
                                                                  std::uint16_t port,
                                                                  AdminParts parts);
  std::uint16_t port() const { return server_->port(); }
  /// "http://host:port", for a member's registration.
  std::string url() const;
  void stop() { server_->stop(std::chrono::milliseconds{500}); }

 private:
  AdminServer(std::string host, std::unique_ptr<HttpServer> server)
      : host_(std::move(host)), server_(std::move(server)) {}
  std::string host_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace moesaic
