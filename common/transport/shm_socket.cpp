#include "common/transport/shm_socket.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

namespace moesaic::transport {
namespace {

constexpr int kBacklog = 64;
constexpr std::size_t kMaxDescriptors = 3;

std::string errno_text() { return std::strerror(errno); }

Result<Descriptor> make_socket() {
  Descriptor socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return fail(Errc::kIo, "unix socket: " + errno_text());
  return socket;
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return fail(Errc::kInvalidArgument, "unix socket: path of " + std::to_string(path.size()) +
                                            " bytes, at most " +
                                            std::to_string(sizeof address.sun_path - 1));
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

Result<void> make_folders(const std::filesystem::path& folder) {
  if (folder.empty() || folder == folder.root_path()) return {};
  std::error_code error;
  if (std::filesystem::is_directory(folder, error)) return {};
  MOESAIC_CHECK(make_folders(folder.parent_path()));
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    return fail(Errc::kIo, folder.string() + ": " + errno_text());
  return {};
}

/// What was passed beside a message; descriptors are owned at once, whatever follows.
void take_descriptors(const msghdr& message, ShmGreeting& greeting) {
  for (auto* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(const_cast<msghdr*>(&message), part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const auto count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(part) + i * sizeof(int), sizeof number);
      Descriptor descriptor(number);
      if (greeting.count < kMaxDescriptors)
        greeting.descriptors[greeting.count++] = std::move(descriptor);
    }
  }
}

}  // namespace

Result<ShmListener> ShmListener::listen(const std::string& path) {
  MOESAIC_TRY(const auto address, address_of(path));
  MOESAIC_CHECK(make_folders(std::filesystem::path(path).parent_path()));
  ShmListener listener;
  MOESAIC_TRY(listener.socket_, make_socket());
  // The file takes the socket's mode: there is no moment at which others could connect.
  ::fchmod(listener.get(), 0600);
  auto bound = ::bind(listener.get(), generic(address), sizeof address);
  if (bound != 0 && errno == EADDRINUSE) {
    MOESAIC_TRY(const auto probe, make_socket());
    if (::connect(probe.get(), generic(address), sizeof address) == 0 || errno != ECONNREFUSED)
      return fail(Errc::kIo, path + ": somebody listens there already");
    ::unlink(path.c_str());  // left behind by a process that was killed
    bound = ::bind(listener.get(), generic(address), sizeof address);
  }
  struct stat status {};
  if (bound != 0 || ::listen(listener.get(), kBacklog) != 0 || ::stat(path.c_str(), &status) != 0)
    return fail(Errc::kIo, path + ": " + errno_text());
  listener.path_ = path;
  listener.inode_ = status.st_ino;
  return listener;
}

ShmListener::~ShmListener() {
  struct stat status {};
  // Unless it is a successor's by now.
  if (socket_ && !path_.empty() && ::stat(path_.c_str(), &status) == 0 && status.st_ino == inode_)
    ::unlink(path_.c_str());
}

Result<Descriptor> ShmListener::accept() const {
  Descriptor socket(::accept4(get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket) return fail(Errc::kUnavailable, "accept: " + errno_text());
  return socket;
}

Result<Descriptor> connect_unix(const std::string& path) {
  MOESAIC_TRY(const auto address, address_of(path));
  MOESAIC_TRY(auto socket, make_socket());
  if (::connect(socket.get(), generic(address), sizeof address) != 0)
    return fail(Errc::kUnavailable, path + ": " + errno_text());
  return socket;
}

Result<void> check_same_user(const Descriptor& socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
    return fail(Errc::kIo, "SO_PEERCRED: " + errno_text());
  if (peer.uid != ::geteuid())
    return fail(Errc::kInvalidArgument, "the peer is a process of user " +
                                            std::to_string(peer.uid) + ", this one of user " +
                                            std::to_string(::geteuid()));
  return {};
}

Result<void> send_greeting(const Descriptor& socket, const ShmHello& hello,
                           std::initializer_list<int> descriptors) {
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(kMaxDescriptors * sizeof(int))> control{};
  iovec part{const_cast<ShmHello*>(&hello), sizeof hello};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_SPACE(descriptors.size() * sizeof(int));
  auto* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
  std::memcpy(CMSG_DATA(header), descriptors.begin(), descriptors.size() * sizeof(int));
  if (::sendmsg(socket.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) !=
      static_cast<ssize_t>(sizeof hello))
    return fail(Errc::kIo, "greeting: " + errno_text());
  return {};
}

Result<ShmGreeting> receive_greeting(const Descriptor& socket) {
  ShmGreeting greeting;
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE((kMaxDescriptors + 1) * sizeof(int))> control{};
  iovec part{&greeting.hello, sizeof greeting.hello};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const auto got = ::recvmsg(socket.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0 && (errno == EAGAIN || errno == EINTR))
    return fail(Errc::kUnavailable, "no greeting yet");
  if (got <= 0) return fail(Errc::kIo, "the peer has gone");
  take_descriptors(message, greeting);
  if (got != static_cast<ssize_t>(sizeof greeting.hello) ||
      (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0)
    return fail(Errc::kCorrupt, "greeting of " + std::to_string(got) + " bytes, " +
                                    std::to_string(sizeof greeting.hello) + " expected");
  const ShmHello ours;
  if (greeting.hello.magic != ours.magic || greeting.hello.version != ours.version)
    return fail(Errc::kCorrupt, "greeting of version " + std::to_string(greeting.hello.version) +
                                    ", version " + std::to_string(ours.version) + " expected");
  return greeting;
}

}  // namespace moesaic::transport
