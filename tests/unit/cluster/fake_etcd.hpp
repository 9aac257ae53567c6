#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/http/server.hpp"

namespace moesaic::cluster {

/// An etcd gateway that answers by a script: for each path the answers in order, the last one for
/// ever. An unknown path is answered as etcd does, 404 in plain text.
class FakeEtcd {
 public:
  struct Answer {
    std::string body;
    unsigned status = 200;
    bool silent = false;  ///< never answers
    bool stream = false;  ///< `body` as the beginning of a stream that stays open
  };

  FakeEtcd();
  ~FakeEtcd();

  void script(const std::string& path, std::vector<Answer> answers);
  /// Bodies asked so far.
  std::vector<std::string> asked(const std::string& path) const;
  std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(server_->port()); }
  /// Ends all open answers and refuses new connections.
  void stop() { server_->stop(std::chrono::milliseconds{0}); }

 private:
  void answer(const std::string& path, const HttpRequest& request,
              const std::shared_ptr<Responder>& responder);

  mutable std::mutex mutex_;
  std::map<std::string, std::vector<Answer>> answers_;
  std::map<std::string, std::vector<std::string>> asked_;
  std::vector<std::shared_ptr<Responder>> open_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace moesaic::cluster
