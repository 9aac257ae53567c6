#include "common/http/session.hpp"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <exception>
#include <utility>

#include "common/base/log.hpp"
#include "common/http/exchange.hpp"
#include "common/http/wire_format.hpp"

namespace moesaic::http_detail {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr std::size_t kReadBytes = 64 << 10;
// Bytes of a next request that are taken in while this one is answered.
constexpr std::size_t kPipelineBytes = 64 << 10;
constexpr std::chrono::milliseconds kDrainTime{1'000};

auto into(error_code& error) { return asio::redirect_error(asio::use_awaitable, error); }

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

/// The path of an origin-form or absolute-form target; empty if it has none.
std::string path_of(std::string_view target) {
  if (const auto scheme = target.find("://");
      scheme != std::string_view::npos && target[0] != '/') {
    const auto slash = target.find('/', scheme + 3);
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  return percent_decoded(target.substr(0, target.find_first_of("?#"))).value_or("");
}

/// Counts one body in the server's total while it is received.
class BodyLease {
 public:
  explicit BodyLease(ServerCore& core) : core_(core) {}
  BodyLease(const BodyLease&) = delete;
  BodyLease& operator=(const BodyLease&) = delete;
  ~BodyLease() { core_.body_bytes -= held_; }
  bool grow_to(std::size_t bytes) {
    core_.body_bytes += bytes - held_;
    held_ = bytes;
    return core_.body_bytes <= core_.config.body_total_limit;
  }

 private:
  ServerCore& core_;
  std::size_t held_ = 0;
};

}  // namespace

Session::Session(asio::ip::tcp::socket socket, std::shared_ptr<ServerCore> core)
    : core_(std::move(core)),
      socket_(std::move(socket)),
      watchdog_(core_->io),
      wake_(core_->io),
      buffer_(core_->config.header_limit + kReadBytes) {
  core_->sessions.insert(this);
}

Session::~Session() { core_->sessions.erase(this); }

Session::Awaitable<void> Session::run(std::shared_ptr<Session> self, bool overloaded) {
  try {
    if (overloaded) {
      self->request_id_ = new_request_id();
      // Named: g++ 12 destroys a braced temporary of a co_await twice.
      HttpFault fault{HttpFaultKind::kOverloaded, 0, "", self->request_id_};
      co_await self->refuse(std::move(fault));
    } else {
      while (co_await self->serve_one()) {
      }
    }
  } catch (const std::exception& error) {
    log(LogLevel::kWarn, std::string("http: connection dropped: ") + error.what());
  }
  self->drop();
  if (self->exchange_) self->exchange_->client_gone();
}

void Session::retire() {
  keep_alive_ = false;
  if (exchange_) exchange_->forbid_keep_alive();
  error_code ignored;
  if (idle_) socket_.cancel(ignored);
}

void Session::drop() {
  gone_ = true;
  error_code ignored;
  socket_.close(ignored);
  disarm();
  wake();
}

void Session::arm(std::chrono::milliseconds timeout) {
  timed_out_ = false;
  watchdog_.expires_after(timeout);
  watchdog_.async_wait([weak = weak_from_this(), round = ++watch_round_](const error_code& error) {
    const auto self = weak.lock();
    if (error || !self || self->watch_round_ != round) return;
    self->timed_out_ = true;
    error_code ignored;
    self->socket_.cancel(ignored);
  });
}

void Session::disarm() {
  ++watch_round_;
  watchdog_.cancel();
}

HttpFault Session::fault_of(const error_code& error) const {
  HttpFault fault{HttpFaultKind::kMalformed, 0, "", request_id_};
  if (timed_out_) {
    fault.kind = HttpFaultKind::kTimeout;
  } else if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    fault.kind = HttpFaultKind::kHeadersTooLarge;
    fault.limit = core_->config.header_limit;
  } else if (error == http::error::body_limit) {
    fault.kind = HttpFaultKind::kBodyTooLarge;
    fault.limit = core_->config.body_limit;
  }
  return fault;
}

Session::Awaitable<bool> Session::wait_for_bytes() {
  if (buffer_.size() > 0) co_return true;
  error_code error;
  idle_ = true;
  arm(core_->config.idle_timeout);
  const auto size = co_await socket_.async_read_some(buffer_.prepare(kReadBytes), into(error));
  disarm();
  idle_ = false;
  buffer_.commit(size);
  co_return !error;
}

Session::Awaitable<std::optional<HttpFault>> Session::read_head(Parser& parser) {
  error_code error;
  arm(core_->config.header_timeout);
  co_await http::async_read_header(socket_, buffer_, parser, into(error));
  disarm();
  if (!error) co_return std::nullopt;
  co_return fault_of(error);
}

Session::Awaitable<std::optional<HttpFault>> Session::read_body(Parser& parser) {
  BodyLease lease(*core_);
  error_code error;
  arm(core_->config.body_timeout);
  if (!parser.is_done() && parser.get().version() >= 11 &&
      boost::beast::iequals(parser.get()[http::field::expect], "100-continue")) {
    constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    co_await asio::async_write(socket_, asio::buffer(kContinue), into(error));
  }
  parser.eager(true);
  bool fits = true;
  while (!error && fits && !parser.is_done()) {
    co_await http::async_read_some(socket_, buffer_, parser, into(error));
    fits = lease.grow_to(parser.get().body().size());
  }
  disarm();
  if (error) co_return fault_of(error);
  if (fits) co_return std::nullopt;
  HttpFault fault{HttpFaultKind::kOverloaded, 0, "", request_id_};
  co_return fault;
}

RequestCount Session::count_of(const Parser::value_type& head) const {
  const std::string method(head.method_string());
  return {core_->router.find(method, path_of(view(head.target()))).pattern, method};
}

Session::Awaitable<bool> Session::serve_one() {
  request_id_ = new_request_id();
  count_ = {};
  if (core_->stopping || !co_await wait_for_bytes()) co_return false;

  Parser parser;
  parser.header_limit(static_cast<std::uint32_t>(core_->config.header_limit));
  parser.body_limit(core_->config.body_limit);
  const auto& head = parser.get();
  if (auto fault = co_await read_head(parser)) {
    if (fault->kind == HttpFaultKind::kBodyTooLarge) count_ = count_of(head);  // a whole head
    co_await refuse(std::move(*fault));
    co_return false;
  }
  if (const auto id = view(head["x-request-id"]); is_safe_request_id(id)) request_id_ = id;
  // Copied before the body is read: its trailers must not become headers.
  HttpRequest request{
      std::string(head.method_string()), path_of(view(head.target())), "", {}, "", request_id_};
  for (const auto& field : head) {
    request.headers.add(view(field.name_string()), view(field.value()));
  }
  count_ = count_of(head);
  keep_alive_ = head.keep_alive() && !core_->stopping;
  const bool http11 = head.version() >= 11;

  if (auto fault = co_await read_body(parser)) {
    co_await refuse(std::move(*fault));
    co_return false;
  }
  request.body = std::move(parser.get().body());
  co_return co_await answer(std::move(request), http11);
}

Session::Awaitable<bool> Session::answer(HttpRequest request, bool http11) {
  exchange_ = std::make_shared<Exchange>(
      *core_, weak_from_this(),
      AnswerFraming{http11, request.method == "HEAD", keep_alive_, request_id_}, count_);
  auto match = core_->router.find(request.method, request.path);
  if (match.handler) {
    request.wildcard = std::move(match.wildcard);
    try {
      (*match.handler)(std::move(request), make_responder(core_, exchange_));
    } catch (const std::exception& error) {
      log(LogLevel::kError, std::string("http: handler threw: ") + error.what());
    }
  } else {
    const auto kind =
        match.allow.empty() ? HttpFaultKind::kUnknownUrl : HttpFaultKind::kMethodNotAllowed;
    exchange_->send(core_->refusal({kind, 0, match.allow, request_id_}));
  }

  watching_ = true;
  asio::co_spawn(core_->io, watch(shared_from_this()), asio::detached);
  co_await pump();
  if (gone_) exchange_->client_gone();
  const bool again = !gone_ && keep_alive_ && exchange_->keeps_connection();
  exchange_.reset();
  error_code error;
  socket_.cancel(error);
  while (watching_) {
    wake_.expires_at(asio::steady_timer::time_point::max());
    co_await wake_.async_wait(into(error));
  }
  co_return again;
}

Session::Awaitable<void> Session::pump() {
  error_code error;
  while (!gone_) {
    if (exchange_->has_output()) {
      const auto output = exchange_->take_output();
      arm(core_->config.write_timeout);
      co_await asio::async_write(socket_, asio::buffer(output), into(error));
      disarm();
      if (error) gone_ = true;
      continue;
    }
    if (exchange_->complete()) co_return;
    const auto interval = exchange_->ping_interval();
    if (interval.count() > 0) {
      wake_.expires_after(interval);
    } else {
      wake_.expires_at(asio::steady_timer::time_point::max());
    }
    co_await wake_.async_wait(into(error));
    if (!error) exchange_->ping();
  }
}

Session::Awaitable<void> Session::watch(std::shared_ptr<Session> self) {
  error_code error;
  while (self->exchange_ && self->buffer_.size() < kPipelineBytes) {
    const auto space = std::min(kReadBytes, self->buffer_.max_size() - self->buffer_.size());
    const auto size =
        co_await self->socket_.async_read_some(self->buffer_.prepare(space), into(error));
    self->buffer_.commit(size);
    if (error) break;
  }
  if (error && self->exchange_) {
    self->gone_ = true;
    error_code ignored;
    self->socket_.cancel(ignored);
  }
  self->watching_ = false;
  self->wake();
}

Session::Awaitable<void> Session::refuse(HttpFault fault) {
  const auto answer = core_->refusal(fault);
  count_.answered(answer.status);
  const auto text = format_answer(answer, {true, false, false, fault.request_id});
  error_code error;
  arm(core_->config.write_timeout);
  co_await asio::async_write(socket_, asio::buffer(text), into(error));
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, error);
  // Closing with unread bytes would reset the connection, and the client might lose the answer.
  arm(kDrainTime);
  buffer_.clear();
  while (!error) {
    co_await socket_.async_read_some(buffer_.prepare(kReadBytes), into(error));
  }
  disarm();
}

}  // namespace moesaic::http_detail
