#include "tests/unit/cluster/fake_etcd.hpp"

#include <gtest/gtest.h>

#include <utility>

namespace moesaic::cluster {

FakeEtcd::FakeEtcd() {
  HttpRouter router;
  router.add("POST", "/{path}", [this](const HttpRequest& request, auto responder) {
    answer(request.path, request, responder);
  });
  HttpServerConfig config;
  config.port = 0;
  auto server = HttpServer::start(config, std::move(router), [](const HttpFault&) {
    return HttpAnswer{404, {}, "404 page not found"};
  });
  if (!server) {
    ADD_FAILURE() << server.error().what;
    return;
  }
  server_ = std::move(*server);
}

FakeEtcd::~FakeEtcd() { stop(); }

void FakeEtcd::script(const std::string& path, std::vector<Answer> answers) {
  const std::lock_guard lock(mutex_);
  answers_[path] = std::move(answers);
}

std::vector<std::string> FakeEtcd::asked(const std::string& path) const {
  const std::lock_guard lock(mutex_);
  const auto found = asked_.find(path);
  return found == asked_.end() ? std::vector<std::string>() : found->second;
}

void FakeEtcd::answer(const std::string& path, const HttpRequest& request,
                      const std::shared_ptr<Responder>& responder) {
  const std::lock_guard lock(mutex_);
  asked_[path].push_back(request.body);
  auto& answers = answers_[path];
  if (answers.empty()) return responder->send({404, {}, "404 page not found\n"});
  const auto said = answers.front();
  if (answers.size() > 1) answers.erase(answers.begin());
  if (said.silent || said.stream) open_.push_back(responder);
  if (said.silent) return;
  if (!said.stream) return responder->send({said.status, {}, said.body});
  responder->begin_stream({});
  responder->write(said.body);
}

}  // namespace moesaic::cluster
