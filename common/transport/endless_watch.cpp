#include "common/transport/endless_watch.hpp"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>

namespace moesaic::transport {
namespace {

constexpr std::uint64_t kInKernel = std::uint64_t{8} << 20;  // received, not read by the library
constexpr std::uint64_t kHeartbeatsPerSecond = 1024;         // their bytes
constexpr std::uint64_t kSweeps = 2;  // the first may have begun before the bytes were counted

}  // namespace

std::optional<std::uint64_t> bytes_received(int descriptor) {
  tcp_info info{};
  socklen_t size = sizeof info;
  constexpr auto kNeeded =
      offsetof(tcp_info, tcpi_bytes_received) + sizeof info.tcpi_bytes_received;
  if (::getsockopt(descriptor, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 || size < kNeeded)
    return std::nullopt;
  return info.tcpi_bytes_received;
}

EndlessWatch::Finding EndlessWatch::look(int descriptor, std::uint64_t max_bytes,
                                         std::uint64_t sweeps, Clock::time_point now) {
  const auto received = bytes_received(descriptor);
  if (!received) return Finding::kFine;
  if (heard_) {
    heard_ = false;
    base_ = *received;
    base_at_ = now;
    over_since_.reset();
    return Finding::kFine;
  }
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(now - base_at_).count();
  const auto framing = max_bytes / 8;
  const auto fair =
      max_bytes + framing + kInKernel + kHeartbeatsPerSecond * static_cast<std::uint64_t>(seconds);
  const auto unheard = *received - base_;
  if (unheard <= fair) return unheard < fair / 4 ? Finding::kFine : Finding::kGrowing;
  if (!over_since_) over_since_ = sweeps;
  return sweeps >= *over_since_ + kSweeps ? Finding::kEndless : Finding::kGrowing;
}

}  // namespace moesaic::transport
