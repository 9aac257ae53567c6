#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "common/transport/shm_memory.hpp"

namespace moesaic::transport {

/// Unix sockets (SOCK_SEQPACKET) over which two processes agree on shared memory. None of these
/// functions blocks.

/// What each end sends first, with descriptors. The connecting end: ring memory, its doorbell page,
/// its eventfd. The listening end's answer: its doorbell page, its eventfd.
struct ShmHello {
  std::uint32_t magic = 0x4d48534d;  // "MSHM"
  std::uint32_t version = 1;
  std::uint64_t ring_bytes = 0;

  bool operator==(const ShmHello&) const = default;
};
struct ShmGreeting {
  ShmHello hello;
  std::array<Descriptor, 3> descriptors;
  std::size_t count = 0;
};

/// A listening socket file; removed with its owner.
class ShmListener {
 public:
  ShmListener() = default;
  /// Makes the file with mode 0600, its missing folders with 0700; a file that nobody listens on is
  /// replaced.
  /// @errors kIo: also when somebody listens there
  [[nodiscard]] static Result<ShmListener> listen(const std::string& path);
  ShmListener(ShmListener&&) = default;
  ShmListener& operator=(ShmListener&&) = default;
  ~ShmListener();

  int get() const { return socket_.get(); }
  /// The next connection, of whatever user. @errors kUnavailable: none now
  [[nodiscard]] Result<Descriptor> accept() const;

 private:
  Descriptor socket_;
  std::string path_;
  std::uint64_t inode_ = 0;
};

/// @errors kUnavailable: nobody listens, or not now
[[nodiscard]] Result<Descriptor> connect_unix(const std::string& path);

/// @errors kInvalidArgument: the other end belongs to another user (both numbers)
[[nodiscard]] Result<void> check_same_user(const Descriptor& socket);

/// @errors kIo
[[nodiscard]] Result<void> send_greeting(const Descriptor& socket, const ShmHello& hello,
                                         std::initializer_list<int> descriptors);
/// @errors kUnavailable: not there yet; kIo: the peer has gone; kCorrupt: something else was sent
[[nodiscard]] Result<ShmGreeting> receive_greeting(const Descriptor& socket);

}  // namespace moesaic::transport
