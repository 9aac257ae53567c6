#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>

namespace moesaic::test {

inline std::uint16_t port_of(const std::string& place) {
  return static_cast<std::uint16_t>(std::stoi(place.substr(place.rfind(':') + 1)));
}

/// A descriptor connected to a port of this host; -1: not to be had. With SOCK_NONBLOCK it may
/// still be connecting.
inline int raw_connect(std::uint16_t port, int flags = 0) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(port);
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
  if (fd >= 0 && ::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 &&
      errno != EINPROGRESS) {
    ::close(fd);
    return -1;
  }
  return fd;
}

/// A slow wire: hands one tcp connection on to a port of this host, at so many bytes a second from
/// who connects, at once the other way.
class Relay {
 public:
  Relay(std::uint16_t target, std::size_t bytes_per_second)
      : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    // Small buffers, else the kernel swallows what should be slow.
    const int small = 32 << 10;
    ::setsockopt(listener_, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof place;
    if (::bind(listener_, reinterpret_cast<const sockaddr*>(&place), size) != 0 ||
        ::listen(listener_, 1) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&place), &size) != 0)
      throw std::runtime_error("relay: cannot listen");
    port_ = ntohs(place.sin_port);
    thread_ = std::jthread([this, target, bytes_per_second] { run(target, bytes_per_second); });
  }
  ~Relay() {
    ending_ = true;
    thread_.join();
    ::close(listener_);
  }
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  std::uint16_t port() const { return port_; }

 private:
  static bool pass(int from, int to, std::size_t most) {
    std::array<char, 16384> buffer{};
    const auto got = ::recv(from, buffer.data(), std::min(most, buffer.size()), 0);
    if (got <= 0) return false;
    for (ssize_t at = 0; at < got;) {
      const auto put =
          ::send(to, buffer.data() + at, static_cast<std::size_t>(got - at), MSG_NOSIGNAL);
      if (put <= 0) return false;
      at += put;
    }
    return true;
  }

  void run(std::uint16_t target, std::size_t bytes_per_second) {
    constexpr std::chrono::milliseconds kTurn{5};
    int near = -1, far = -1;
    bool alive = true;
    while (alive && !ending_) {
      std::array<pollfd, 3> polled{
          {{near < 0 ? listener_ : -1, POLLIN, 0}, {near, POLLIN, 0}, {far, POLLIN, 0}}};
      ::poll(polled.data(), polled.size(), 20);
      if (polled[0].revents != 0) {
        near = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        far = raw_connect(target);
        continue;
      }
      if (polled[2].revents != 0) alive = pass(far, near, 16384);
      if (alive && polled[1].revents != 0) {
        alive = pass(near, far, bytes_per_second * kTurn.count() / 1000);
        std::this_thread::sleep_for(kTurn);
      }
    }
    ::close(near);
    ::close(far);
  }

  int listener_;
  std::uint16_t port_ = 0;
  std::atomic<bool> ending_ = false;
  std::jthread thread_;
};

}  // namespace moesaic::test
