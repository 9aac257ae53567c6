#include "tests/unit/http/raw_server.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>

namespace moesaic {
namespace {

constexpr int kPatienceMs = 5'000;

/// Zero bytes: closed, or silent for too long.
std::string receive(int socket) {
  pollfd ready{socket, POLLIN, 0};
  if (::poll(&ready, 1, kPatienceMs) <= 0) return {};
  char bytes[4096];
  const auto size = ::recv(socket, bytes, sizeof bytes, 0);
  return size > 0 ? std::string(bytes, static_cast<std::size_t>(size)) : std::string();
}

}  // namespace

bool RawServer::Connection::send(std::string_view bytes) const {
  while (!bytes.empty()) {
    const auto sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

std::string RawServer::Connection::read_request() const {
  std::string request;
  for (;;) {
    const auto end = request.find("\r\n\r\n");
    if (end != std::string::npos) {
      const auto length = request.find("Content-Length: ");
      const auto body =
          length < end ? std::strtoul(request.c_str() + length + 16, nullptr, 10) : 0UL;
      if (request.size() >= end + 4 + body) return request;
    }
    const auto piece = receive(socket_);
    if (piece.empty()) return {};
    request += piece;
  }
}

void RawServer::Connection::wait_for_close() const {
  while (!receive(socket_).empty()) {
  }
}

RawServer::RawServer(std::function<void(Connection)> script)
    : listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::listen(listener_, 16) != 0 ||
      ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    ADD_FAILURE() << "cannot listen on loopback";
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([listener = listener_, script = std::move(script)] {
    for (;;) {
      const int socket = ::accept(listener, nullptr, nullptr);
      if (socket < 0) return;
      script(Connection(socket));
      ::close(socket);
    }
  });
}

RawServer::~RawServer() {
  ::shutdown(listener_, SHUT_RDWR);
  thread_.join();
  ::close(listener_);
}

std::string RawServer::url(std::string_view target) const {
  return "http://127.0.0.1:" + std::to_string(port_) + std::string(target);
}

}  // namespace moesaic
