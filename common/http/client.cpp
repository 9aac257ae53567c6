#include "common/http/client.hpp"

#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>
#include <cerrno>
#include <cstring>
#include <future>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "common/http/line_splitter.hpp"
#include "common/http/url.hpp"

namespace moesaic {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kReadBytes = 16 << 10;
constexpr std::chrono::milliseconds kLookupPoll{10};
constexpr std::size_t kToldBytes = 300;  // of a refusal's text

std::string_view view(boost::beast::string_view text) { return {text.data(), text.size()}; }

bool is_clean(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
  });
}

struct Addresses {
  std::vector<tcp::endpoint> endpoints;
  std::string error;
};

Addresses addresses_of(const std::string& host, std::uint16_t port) {
  Addresses out;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int code = ::getaddrinfo(host.c_str(), nullptr, &hints, &found)) {
    out.error = ::gai_strerror(code);
    return out;
  }
  for (const auto* at = found; at != nullptr; at = at->ai_next) {
    tcp::endpoint endpoint;
    if (at->ai_addrlen > endpoint.capacity()) continue;
    std::memcpy(endpoint.data(), at->ai_addr, at->ai_addrlen);
    endpoint.resize(at->ai_addrlen);
    endpoint.port(port);
    out.endpoints.push_back(endpoint);
  }
  ::freeaddrinfo(found);
  return out;
}

}  // namespace

class HttpClient::Impl {
 public:
  explicit Impl(HttpClientLimits limits) : limits_(limits), socket_(io_) {}

  Result<HttpAnswer> request(std::string_view method, std::string_view url_text,
                             std::string_view body, const HttpHeaders& headers,
                             std::chrono::milliseconds timeout) {
    MOESAIC_TRY(const auto url, parse_http_url(url_text));
    const Call call{url, timeout, Clock::now() + timeout};
    MOESAIC_CHECK(send(call, method, body, headers));
    http::response_parser<http::string_body> parser;
    prepare(parser, limits_.body_bytes);
    parser.skip(method == "HEAD");
    if (const auto error = wait(call.deadline, [&](auto done) {
          http::async_read(socket_, buffer_, parser, std::move(done));
        })) {
      return broken(call, error, "answer");
    }
    if (!parser.get().keep_alive()) close();
    auto& message = parser.get();
    HttpAnswer answer{message.result_int(), {}, std::move(message.body())};
    for (const auto& field : message) {
      answer.headers.add(view(field.name_string()), view(field.value()));
    }
    return answer;
  }

  Result<void> stream(std::string_view url_text, std::string_view body, const HttpHeaders& headers,
                      std::chrono::milliseconds timeout, std::chrono::milliseconds silence,
                      const LineSink& on_line) {
    MOESAIC_TRY(const auto url, parse_http_url(url_text));
    Call call{url, timeout, Clock::now() + timeout};
    MOESAIC_CHECK(send(call, "POST", body, headers));
    http::response_parser<http::buffer_body> parser;
    prepare(parser, boost::none);
    if (const auto error = wait(call.deadline, [&](auto done) {
          http::async_read_header(socket_, buffer_, parser, std::move(done));
        })) {
      return broken(call, error, "answer");
    }
    const auto status = parser.get().result_int();
    std::string refusal;
    LineSplitter lines(limits_.line_bytes);
    std::vector<char> piece(kReadBytes);
    while (!parser.is_done()) {
      parser.get().body().data = piece.data();
      parser.get().body().size = piece.size();
      auto error = wait(Clock::now() + silence, [&](auto done) {
        http::async_read_some(socket_, buffer_, parser, std::move(done));
      });
      if (error == http::error::need_buffer) error = {};
      if (error) {
        call.timeout = silence;
        return broken(call, error, "more of the stream");
      }
      const std::string_view bytes(piece.data(), piece.size() - parser.get().body().size);
      if (status != 200) {
        refusal += bytes.substr(0, kToldBytes - std::min(kToldBytes, refusal.size()));
        if (refusal.size() == kToldBytes) break;
        continue;
      }
      const auto outcome = lines.feed(bytes, on_line);
      if (cancelled_) return broken(call, asio::error::operation_aborted, "");
      if (outcome == LineSplitter::Outcome::kMore) continue;
      close();
      if (outcome == LineSplitter::Outcome::kStopped) return {};
      return fail(Errc::kTooLarge, name(call) + ": a line is longer than " +
                                       std::to_string(limits_.line_bytes) + " bytes");
    }
    if (!parser.is_done() || !parser.get().keep_alive()) close();
    if (status != 200) {
      return fail(Errc::kUnavailable,
                  name(call) + ": HTTP " + std::to_string(status) + ": " + refusal);
    }
    if (!lines.rest().empty()) on_line(lines.rest());
    return {};
  }

  void cancel() {
    cancelled_ = true;
    asio::post(io_, [this] { close(); });
  }

 private:
  struct Call {
    HttpUrl url;
    std::chrono::milliseconds timeout;
    Clock::time_point deadline;
  };

  static std::string name(const Call& call) {
    return "http://" + call.url.authority() + call.url.target;
  }

  /// What a failed operation means; the connection is of no use any more.
  /// @param awaited what did not come, for a time-out
  tl::unexpected<Error> broken(const Call& call, const error_code& error,
                               std::string_view awaited) {
    close();
    const auto told = [&](Errc code, const std::string& what) {
      return fail(code, name(call) + ": " + what);
    };
    if (cancelled_) return told(Errc::kCancelled, "cancelled");
    if (error == asio::error::timed_out) {
      return told(Errc::kDeadlineExceeded, "no " + std::string(awaited) + " within " +
                                               std::to_string(call.timeout.count()) + " ms");
    }
    if (error == http::error::body_limit) {
      return told(Errc::kTooLarge,
                  "a body of more than " + std::to_string(limits_.body_bytes) + " bytes");
    }
    if (error == http::error::header_limit || error == http::error::buffer_overflow) {
      return told(Errc::kTooLarge,
                  "headers of more than " + std::to_string(limits_.header_bytes) + " bytes");
    }
    if (error == http::error::end_of_stream || error == http::error::partial_message) {
      return told(Errc::kUnavailable, "closed before the end of its answer");
    }
    static const error_code http_error = http::error::end_of_stream;
    if (error.category() == http_error.category()) {
      return told(Errc::kCorrupt, "not HTTP: " + error.message());
    }
    return told(Errc::kUnavailable, error.message());
  }

  template <class Parser, class Limit>
  void prepare(Parser& parser, const Limit& body_limit) {
    parser.header_limit(static_cast<std::uint32_t>(limits_.header_bytes));
    parser.body_limit(body_limit);
    parser.eager(true);
  }

  /// Runs one operation to its end, which comes by itself, by the deadline or by `cancel`.
  /// @return asio::error::timed_out at the deadline
  template <class Start>
  error_code wait(Clock::time_point deadline, Start start) {
    bool done = false;
    error_code result;
    start([&](const error_code& error, const auto&...) {
      done = true;
      result = error;
    });
    bool late = false;
    while (!done) {
      if (io_.stopped()) io_.restart();
      if (late) {
        io_.run_one();
      } else if (io_.run_one_until(deadline) == 0 && !done) {
        late = true;
        close();
      }
    }
    if (late) result = asio::error::timed_out;
    return result;
  }

  Result<void> send(const Call& call, std::string_view method, std::string_view body,
                    const HttpHeaders& headers) {
    http::request<http::string_body> message;
    message.version(11);
    message.method_string({method.data(), method.size()});
    message.target(call.url.target);
    message.set(http::field::host, call.url.authority());
    for (const auto& [field, value] : headers.fields()) {
      if (!is_clean(field) || !is_clean(value)) {
        return fail(Errc::kInvalidArgument, name(call) + ": header with a control character");
      }
      message.insert(field, value);
    }
    message.body() = std::string(body);
    message.prepare_payload();
    MOESAIC_CHECK(connect(call));
    if (const auto error = wait(call.deadline, [&](auto done) {
          http::async_write(socket_, message, std::move(done));
        })) {
      return broken(call, error, "room for the request");
    }
    return {};
  }

  Result<void> connect(const Call& call) {
    if (cancelled_) return broken(call, asio::error::operation_aborted, "");
    if (socket_.is_open() && connected_to_ == call.url.authority() && is_quiet()) return {};
    close();
    buffer_.clear();
    MOESAIC_TRY(const auto endpoints, resolve(call));
    if (const auto error = wait(call.deadline, [&](auto done) {
          asio::async_connect(socket_, endpoints, std::move(done));
        })) {
      return broken(call, error, "a connection");
    }
    error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
    connected_to_ = call.url.authority();
    return {};
  }

  Result<std::vector<tcp::endpoint>> resolve(const Call& call) {
    error_code error;
    const auto address = asio::ip::make_address(call.url.host, error);
    if (!error) return std::vector{tcp::endpoint(address, call.url.port)};
    // getaddrinfo knows no time limit: its thread outlives a caller that gives up.
    auto promise = std::make_shared<std::promise<Addresses>>();
    auto future = promise->get_future();
    std::thread([promise, host = call.url.host, port = call.url.port] {
      promise->set_value(addresses_of(host, port));
    }).detach();
    while (future.wait_for(kLookupPoll) != std::future_status::ready) {
      if (cancelled_) return broken(call, asio::error::operation_aborted, "");
      if (Clock::now() >= call.deadline) {
        return broken(call, asio::error::timed_out, "the host's address");
      }
    }
    auto found = future.get();
    if (found.endpoints.empty()) return fail(Errc::kUnavailable, name(call) + ": " + found.error);
    return std::move(found.endpoints);
  }

  bool is_quiet() {
    char byte = 0;
    const auto size = ::recv(socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return buffer_.size() == 0 && size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
  }

  void close() {
    error_code ignored;
    socket_.close(ignored);
  }

  const HttpClientLimits limits_;
  asio::io_context io_{1};
  tcp::socket socket_;
  boost::beast::flat_buffer buffer_;
  std::string connected_to_;
  std::atomic<bool> cancelled_{false};
};

HttpClient::HttpClient(HttpClientLimits limits) : impl_(std::make_unique<Impl>(limits)) {}

HttpClient::~HttpClient() = default;

Result<HttpAnswer> HttpClient::request(std::string_view method, std::string_view url,
                                       std::string_view body, const HttpHeaders& headers,
                                       std::chrono::milliseconds timeout) {
  try {
    return impl_->request(method, url, body, headers, timeout);
  } catch (const std::exception& error) {
    return fail(Errc::kInternal, std::string(url) + ": " + error.what());
  }
}

Result<void> HttpClient::stream(std::string_view url, std::string_view body,
                                const HttpHeaders& headers, std::chrono::milliseconds timeout,
                                std::chrono::milliseconds silence, const LineSink& on_line) {
  try {
    return impl_->stream(url, body, headers, timeout, silence, on_line);
  } catch (const std::exception& error) {
    return fail(Errc::kInternal, std::string(url) + ": " + error.what());
  }
}

void HttpClient::cancel() { impl_->cancel(); }

}  // namespace moesaic
