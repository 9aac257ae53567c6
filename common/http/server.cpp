#include "common/http/server.hpp"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/log.hpp"
#include "common/http/session.hpp"

namespace moesaic {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using http_detail::ServerCore;
using http_detail::Session;

constexpr std::chrono::milliseconds kAcceptPause{100};
constexpr std::chrono::milliseconds kStopPoll{10};

Result<tcp::endpoint> endpoint_of(const HttpServerConfig& config) {
  error_code error;
  auto address =
      asio::ip::make_address(config.host == "localhost" ? "127.0.0.1" : config.host, error);
  const auto refuse = [&](std::string_view why) {
    return fail(Errc::kInvalidArgument,
                std::string(config.host_key) + " \"" + config.host + "\": " + std::string(why));
  };
  if (error) return refuse("not an IP address");
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    address = asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6());
  if (address.is_unspecified())
    return refuse("every interface at once; name the one address to listen on");
  if (!address.is_loopback() && !config.allow_any_host)
    return refuse(
        "not a loopback address; to serve anybody who reaches it, without API keys, say "
        "--insecure-no-auth");
  return tcp::endpoint(address, config.port);
}

Result<void> open(tcp::acceptor& acceptor, const tcp::endpoint& endpoint) {
  error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(4096, error);
  if (error) {
    return fail(Errc::kIo, "cannot listen on " + endpoint.address().to_string() + " port " +
                               std::to_string(endpoint.port()) + ": " + error.message());
  }
  return {};
}

// What a posted task throws ends that task, not the server.
void run(ServerCore& core) {
  while (!core.io.stopped()) {
    try {
      core.io.run();
    } catch (const std::exception& error) {
      log(LogLevel::kError, std::string("http: task threw: ") + error.what());
    }
  }
}

}  // namespace

struct HttpServer::Impl {
  std::shared_ptr<ServerCore> core;
  tcp::acceptor acceptor;
  std::uint16_t port = 0;
  std::jthread thread;

  explicit Impl(std::shared_ptr<ServerCore> shared) : core(std::move(shared)), acceptor(core->io) {}

  static asio::awaitable<void> accept(Impl& self) {
    asio::steady_timer pause(self.core->io);
    while (self.acceptor.is_open()) {
      error_code error;
      auto socket =
          co_await self.acceptor.async_accept(asio::redirect_error(asio::use_awaitable, error));
      if (error == asio::error::operation_aborted || self.core->stopping) co_return;
      if (error) {  // out of descriptors: the connection stays in the backlog
        log(LogLevel::kWarn, "http: accept: " + error.message());
        pause.expires_after(kAcceptPause);
        co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
        continue;
      }
      socket.set_option(tcp::no_delay(true), error);
      const bool overloaded = self.core->sessions.size() >= self.core->config.connection_limit;
      auto session = std::make_shared<Session>(std::move(socket), self.core);
      asio::co_spawn(self.core->io, Session::run(std::move(session), overloaded), asio::detached);
    }
  }

  static asio::awaitable<void> shut_down(Impl& self, std::chrono::milliseconds grace) {
    auto& core = *self.core;
    error_code error;
    core.stopping = true;
    self.acceptor.close(error);
    for (auto* session : core.sessions) session->retire();
    asio::steady_timer poll(core.io);
    const auto end = std::chrono::steady_clock::now() + grace;
    bool dropped = false;
    while (!core.sessions.empty()) {
      if (!dropped && std::chrono::steady_clock::now() >= end) {
        for (auto* session : core.sessions) session->drop();
        dropped = true;
      }
      poll.expires_after(kStopPoll);
      co_await poll.async_wait(asio::redirect_error(asio::use_awaitable, error));
    }
    core.io.stop();
  }
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() { stop(std::chrono::milliseconds{0}); }

Result<std::unique_ptr<HttpServer>> HttpServer::start(HttpServerConfig config, HttpRouter router,
                                                      HttpFaultAnswer refusal) {
  MOESAIC_TRY(const auto endpoint, endpoint_of(config));
  auto core = std::make_shared<ServerCore>();
  core->config = std::move(config);
  core->router = std::move(router);
  core->refusal = std::move(refusal);
  auto impl = std::make_unique<Impl>(std::move(core));
  MOESAIC_CHECK(open(impl->acceptor, endpoint));
  error_code error;
  impl->port = impl->acceptor.local_endpoint(error).port();
  asio::co_spawn(impl->core->io, Impl::accept(*impl), asio::detached);
  impl->thread = std::jthread([shared = impl->core] { run(*shared); });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

std::uint16_t HttpServer::port() const { return impl_->port; }

void HttpServer::stop(std::chrono::milliseconds grace) {
  if (!impl_->thread.joinable()) return;
  asio::co_spawn(impl_->core->io, Impl::shut_down(*impl_, grace), asio::detached);
  impl_->thread.join();
}

}  // namespace moesaic
