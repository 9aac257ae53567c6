#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "tests/support/temp_dir.hpp"

namespace moesaic::test {

/// A real etcd on loopback, its data in a temporary folder; ends with the test.
class EtcdServer {
 public:
  /// Where the program is; empty: it is not installed.
  static std::string program();

  EtcdServer();
  ~EtcdServer();
  EtcdServer(const EtcdServer&) = delete;
  EtcdServer& operator=(const EtcdServer&) = delete;

  /// Starts it, on the same port and data as before, and waits until it serves.
  void start();
  /// Ends it at once, as a crash would.
  void kill();
  /// Sends it a signal, SIGSTOP or SIGCONT.
  void signal(int number) const;

  std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(client_port_); }
  /// POSTs to its gateway; the answer's text.
  std::string post(const std::string& path, const std::string& body) const;

 private:
  TempDir folder_;
  std::uint16_t client_port_;
  std::uint16_t peer_port_;
  pid_t process_ = -1;
};

}  // namespace moesaic::test
