#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/result.hpp"
#include "common/http/message.hpp"
#include "common/http/router.hpp"

namespace moesaic {

struct HttpServerConfig {
  std::string host = "127.0.0.1";           ///< an address, or "localhost"
  std::uint16_t port = 8080;                ///< 0: the system chooses
  std::string_view host_key = "http.host";  ///< where `host` was configured, for error texts
  /// Whether `host` may be other than loopback: anybody who reaches it is served. Never a wildcard.
  bool allow_any_host = false;

  std::size_t header_limit = 16 << 10;       ///< bytes of request line and headers
  std::size_t body_limit = 64 << 20;         ///< bytes of one body
  std::size_t body_total_limit = 512 << 20;  ///< bytes of all bodies being received
  std::size_t connection_limit = 1024;
  std::size_t unsent_limit = 8 << 20;  ///< bytes of one stream that wait for a slow client

  std::chrono::milliseconds header_timeout{10'000};  ///< first byte to end of headers
  std::chrono::milliseconds body_timeout{60'000};    ///< end of headers to end of body
  std::chrono::milliseconds idle_timeout{75'000};    ///< without a request
  std::chrono::milliseconds write_timeout{30'000};   ///< one piece of the answer
};

/// HTTP/1.1 with keep-alive, on one io thread of its own. Owned by main; `start` and `stop` are
/// called there. A client that leaves is noticed while its request is being worked on.
class HttpServer {
 public:
  /// Listens and serves.
  /// @param router  handlers run on the io thread
  /// @param refusal words what the server refuses by itself
  /// @errors kInvalidArgument (host is no address, a wildcard, or not loopback and not allowed),
  /// kIo (cannot listen; names address and port)
  [[nodiscard]] static Result<std::unique_ptr<HttpServer>> start(HttpServerConfig config,
                                                                 HttpRouter router,
                                                                 HttpFaultAnswer refusal);
  /// As `stop` without grace.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  /// The port listened on.
  std::uint16_t port() const;

  /// Accepts no more connections, closes idle ones, lets open answers end for up to `grace`, closes
  /// the rest (their on_close runs), joins the io thread. Not from the io thread; a second call
  /// does nothing.
  void stop(std::chrono::milliseconds grace);

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace moesaic
