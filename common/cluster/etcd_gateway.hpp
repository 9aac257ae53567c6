#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/http/client.hpp"

namespace moesaic::cluster::etcd {

/// One thread's way to an etcd cluster: asks the endpoint that answered last, and the next one when
/// it fails. Calls come one at a time; `cancel` from any thread.
class Gateway {
 public:
  using Clock = std::chrono::steady_clock;

  /// @param endpoints http://host:port
  /// @param patience  for one endpoint
  Gateway(std::vector<std::string> endpoints, std::chrono::milliseconds patience);

  /// The text of the first endpoint that answers, be it an error of etcd's: the parsers of
  /// etcd_messages.hpp tell. Each endpoint is tried once.
  /// @errors as HttpClient, of the last endpoint tried; kDeadlineExceeded at `deadline`
  [[nodiscard]] Result<std::string> post(std::string_view path, std::string_view body,
                                         Clock::time_point deadline);

  /// Follows a stream of one endpoint. When it breaks, the next call asks the next endpoint; when
  /// it only falls silent (kDeadlineExceeded), the same one.
  [[nodiscard]] Result<void> follow(std::string_view path, std::string_view body,
                                    std::chrono::milliseconds silence,
                                    const HttpClient::LineSink& on_line);

  void cancel() { client_.cancel(); }

 private:
  std::string url(std::string_view path) const;
  void next() { current_ = (current_ + 1) % endpoints_.size(); }

  std::vector<std::string> endpoints_;
  std::chrono::milliseconds patience_;
  std::size_t current_ = 0;
  HttpClient client_;
};

}  // namespace moesaic::cluster::etcd
