#pragma once

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "common/http/server.hpp"

namespace moesaic::test {

/// A collector on loopback: takes what exporters send.
class TraceCollector {
 public:
  /// @param status of its answers; 0: never answers
  explicit TraceCollector(unsigned status = 200) {
    HttpRouter router;
    router.add("POST", "/v1/traces", [this, status](const HttpRequest& request, auto responder) {
      const std::lock_guard lock(mutex_);
      type_ = std::string(request.headers.find("Content-Type").value_or(""));
      bodies_.push_back(request.body);
      news_.notify_all();
      if (status == 0) return held_.push_back(responder);
      responder->send({status, {}, "{}"});
    });
    HttpServerConfig config;
    config.port = 0;
    auto server = HttpServer::start(config, std::move(router), [](const HttpFault&) {
      return HttpAnswer{404, {}, ""};
    });
    EXPECT_TRUE(server) << server.error().what;
    server_ = std::move(*server);
  }
  std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(server_->port()); }
  std::string type() const {
    const std::lock_guard lock(mutex_);
    return type_;
  }
  bool wait_for_batches(std::size_t count) {
    std::unique_lock lock(mutex_);
    return news_.wait_for(lock, std::chrono::seconds(5), [&] { return bodies_.size() >= count; });
  }
  /// All spans so far, in the order they came, and who the last ones are of.
  std::vector<boost::json::object> all_spans(boost::json::object* resource = nullptr) const {
    const std::lock_guard lock(mutex_);
    std::vector<boost::json::object> out;
    for (const auto& body : bodies_) {
      const auto value = boost::json::parse(body);
      for (const auto& of : value.at("resourceSpans").as_array()) {
        if (resource != nullptr) *resource = of.at("resource").as_object();
        for (const auto& scope : of.at("scopeSpans").as_array()) {
          for (const auto& span : scope.at("spans").as_array()) out.push_back(span.as_object());
        }
      }
    }
    return out;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable news_;
  std::string type_;
  std::vector<std::string> bodies_;
  std::vector<std::shared_ptr<Responder>> held_;
  std::unique_ptr<HttpServer> server_;
};

/// The value of a span's or resource's attribute; null: it has none.
inline boost::json::value attribute(const boost::json::object& owner, std::string_view key) {
  for (const auto& entry : owner.at("attributes").as_array()) {
    if (entry.at("key").as_string() == boost::json::string_view(key.data(), key.size())) {
      return entry.at("value");
    }
  }
  return nullptr;
}

}  // namespace moesaic::test
