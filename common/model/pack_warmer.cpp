#include "common/model/pack_warmer.hpp"

#include <sched.h>

#include <algorithm>
#include <cstdint>

namespace moesaic {
namespace {

constexpr std::size_t kPage = 4096;
/// Touched between looks at the stop token.
constexpr std::size_t kPiece = std::size_t{4} << 20;

}  // namespace

PackWarmer::PackWarmer() : thread_([this](const std::stop_token& stop) { run(stop); }) {}

void PackWarmer::add(std::shared_ptr<const void> owner, const std::byte* data, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  ranges_.push_back({std::move(owner), data, bytes});
  changed_.notify_all();
}

void PackWarmer::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return ranges_.empty() && !busy_; });
}

void PackWarmer::run(const std::stop_token& stop) {
  const sched_param none{};
  ::sched_setscheduler(0, SCHED_IDLE, &none);
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [this] { return !ranges_.empty(); })) {
    auto& front = ranges_.front();
    Range piece{front.owner, front.data, std::min(front.bytes, kPiece)};
    front.data += piece.bytes;
    front.bytes -= piece.bytes;
    if (front.bytes == 0) ranges_.pop_front();
    busy_ = true;
    lock.unlock();
    std::uint8_t sum = 0;
    for (std::size_t i = 0; i < piece.bytes; i += kPage)
      sum = static_cast<std::uint8_t>(sum ^ std::to_integer<std::uint8_t>(piece.data[i]));
    asm volatile("" : : "r"(sum));
    piece.owner.reset();
    lock.lock();
    busy_ = false;
    if (ranges_.empty()) changed_.notify_all();
    if (stop.stop_requested()) return;
  }
}

}  // namespace moesaic
