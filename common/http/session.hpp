#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "common/http/message.hpp"
#include "common/http/request_count.hpp"
#include "common/http/router.hpp"
#include "common/http/server.hpp"

/// Inside of common/http: not for others.
namespace moesaic::http_detail {

class Exchange;
class Session;

/// What all sessions share; everything but the constants is touched on the io thread only.
struct ServerCore {
  HttpServerConfig config;
  HttpRouter router;
  HttpFaultAnswer refusal;

  std::set<Session*> sessions;
  std::size_t body_bytes = 0;  ///< of bodies being received
  bool stopping = false;
  /// Last: handlers that it still holds when it goes refer to the members above. One thread runs
  /// it, but without the hint that says so: with that, what this thread posts runs after what
  /// others post later, and a responder's order is lost.
  boost::asio::io_context io;
};

/// One connection: reads a request, hands it to its route, writes the answer while it watches for
/// the client's leaving, and again. Lives in its coroutine; on the io thread only.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(boost::asio::ip::tcp::socket socket, std::shared_ptr<ServerCore> core);
  ~Session();

  /// Serves until the connection ends.
  /// @param overloaded refuse the connection at once
  static boost::asio::awaitable<void> run(std::shared_ptr<Session> self, bool overloaded);

  /// Ends an idle connection now, a busy one after its answer.
  void retire();
  /// Ends the connection now.
  void drop();
  /// The open exchange has output, or is complete.
  void wake() { wake_.cancel(); }

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  template <class T>
  using Awaitable = boost::asio::awaitable<T>;

  Awaitable<bool> serve_one();
  Awaitable<bool> wait_for_bytes();
  Awaitable<std::optional<HttpFault>> read_head(Parser& parser);
  Awaitable<std::optional<HttpFault>> read_body(Parser& parser);
  Awaitable<bool> answer(HttpRequest request, bool http11);
  Awaitable<void> pump();
  Awaitable<void> refuse(HttpFault fault);
  static Awaitable<void> watch(std::shared_ptr<Session> self);

  RequestCount count_of(const Parser::value_type& head) const;
  HttpFault fault_of(const boost::system::error_code& error) const;
  void arm(std::chrono::milliseconds timeout);
  void disarm();

  std::shared_ptr<ServerCore> core_;
  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer watchdog_;
  boost::asio::steady_timer wake_;
  boost::beast::flat_buffer buffer_;
  std::shared_ptr<Exchange> exchange_;  ///< the request being answered
  std::string request_id_;
  RequestCount count_;  ///< of the request being read or answered
  std::uint64_t watch_round_ = 0;
  bool timed_out_ = false;
  bool idle_ = false;
  bool keep_alive_ = true;
  bool gone_ = false;
  bool watching_ = false;
};

}  // namespace moesaic::http_detail
