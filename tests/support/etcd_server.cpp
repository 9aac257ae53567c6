#include "tests/support/etcd_server.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>
#include <vector>

#include "common/http/client.hpp"

namespace moesaic::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kStartTime = 20s;

std::uint16_t free_port() {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    ADD_FAILURE() << "no free port on loopback";
  }
  ::close(listener);
  return ntohs(address.sin_port);
}

}  // namespace

std::string EtcdServer::program() {
  for (const char* path : {"/usr/bin/etcd", "/usr/local/bin/etcd"}) {
    if (::access(path, X_OK) == 0) return path;
  }
  return {};
}

EtcdServer::EtcdServer() : client_port_(free_port()), peer_port_(free_port()) {}

EtcdServer::~EtcdServer() { kill(); }

void EtcdServer::start() {
  const auto peer = "http://127.0.0.1:" + std::to_string(peer_port_);
  const auto path = program();
  const auto log = (folder_ / "log").string();
  std::vector<std::string> arguments = {path,
                                        "--name",
                                        "t",
                                        "--data-dir",
                                        (folder_ / "data").string(),
                                        "--listen-client-urls",
                                        endpoint(),
                                        "--advertise-client-urls",
                                        endpoint(),
                                        "--listen-peer-urls",
                                        peer,
                                        "--initial-advertise-peer-urls",
                                        peer,
                                        "--initial-cluster",
                                        "t=" + peer};
  std::vector<char*> argv;
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);

  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  if (::posix_spawn(&process_, path.c_str(), &files, nullptr, argv.data(), environ) != 0) {
    ADD_FAILURE() << "cannot start " << path;
    process_ = -1;
  }
  ::posix_spawn_file_actions_destroy(&files);

  const auto end = Clock::now() + kStartTime;
  while (process_ > 0 && Clock::now() < end) {
    HttpClient client;
    const auto health = client.request("GET", endpoint() + "/health", "", {}, 1s);
    if (health && health->status == 200) return;
    std::this_thread::sleep_for(50ms);
  }
  ADD_FAILURE() << path << " does not serve";
}

void EtcdServer::kill() {
  if (process_ <= 0) return;
  ::kill(process_, SIGKILL);
  ::waitpid(process_, nullptr, 0);
  process_ = -1;
}

void EtcdServer::signal(int number) const { ::kill(process_, number); }

std::string EtcdServer::post(const std::string& path, const std::string& body) const {
  HttpClient client;
  const auto answer = client.request("POST", endpoint() + path, body, {}, 5s);
  EXPECT_TRUE(answer) << answer.error().what;
  return answer ? answer->body : std::string();
}

}  // namespace moesaic::test
