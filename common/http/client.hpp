#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/result.hpp"
#include "common/http/message.hpp"

namespace moesaic {

struct HttpClientLimits {
  std::size_t header_bytes = 16 << 10;  ///< status line and headers of an answer
  std::size_t body_bytes = 4 << 20;     ///< body of an answer
  std::size_t line_bytes = 4 << 20;     ///< one line of a stream
};

/// HTTP/1.1 client: one connection, kept between requests to the same host and port. Calls block up
/// to their time limit and come one at a time, from any thread; only `cancel` may come beside them.
/// Follows no redirects, asks no proxy, repeats nothing by itself. Errors name the URL.
///
/// Errors of every call: kInvalidArgument and kUnsupported (the URL, a header), kUnavailable (no
/// such host, refused, closed early), kDeadlineExceeded, kTooLarge (over a limit), kCorrupt (not
/// HTTP), kCancelled.
class HttpClient {
 public:
  explicit HttpClient(HttpClientLimits limits = {});
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// A whole answer, whatever its status.
  /// @param timeout connecting included
  [[nodiscard]] Result<HttpAnswer> request(std::string_view method, std::string_view url,
                                           std::string_view body, const HttpHeaders& headers,
                                           std::chrono::milliseconds timeout);

  /// One line of a stream, without its end; false ends the stream.
  using LineSink = std::function<bool(std::string_view line)>;

  /// POSTs and hands on the answer line by line as it comes, on this thread, until it ends, breaks,
  /// the sink has enough or the client is cancelled. Bytes behind the last newline are a line, too.
  /// @param timeout from the start to the answer's headers
  /// @param silence longest wait for more bytes of the body
  /// @errors also kUnavailable with status and text if the status is not 200
  [[nodiscard]] Result<void> stream(std::string_view url, std::string_view body,
                                    const HttpHeaders& headers, std::chrono::milliseconds timeout,
                                    std::chrono::milliseconds silence, const LineSink& on_line);

  /// Ends the call under way and all later ones with kCancelled. Any thread, also inside a sink.
  void cancel();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace moesaic
