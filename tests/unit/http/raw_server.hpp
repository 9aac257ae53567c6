#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

namespace moesaic {

/// A TCP server on loopback that says exactly what a test wants a server to say. Its script runs on
/// a thread of its own, once for each connection, one after another; connection ends with it.
class RawServer {
 public:
  class Connection {
   public:
    explicit Connection(int socket) : socket_(socket) {}
    /// False once the peer has gone.
    bool send(std::string_view bytes) const;
    /// What came up to the end of a request's headers and its body by Content-Length; empty: gone.
    std::string read_request() const;
    /// Waits for the peer to close, at most five seconds.
    void wait_for_close() const;

   private:
    int socket_;
  };

  explicit RawServer(std::function<void(Connection)> script);
  ~RawServer();
  RawServer(const RawServer&) = delete;
  RawServer& operator=(const RawServer&) = delete;

  std::uint16_t port() const { return port_; }
  std::string url(std::string_view target = "/") const;

 private:
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::thread thread_;
};

}  // namespace moesaic
