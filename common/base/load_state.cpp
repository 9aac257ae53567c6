#include "common/base/load_state.hpp"

namespace moesaic {

void LoadState::set(std::uint64_t bytes, std::uint64_t total, const std::string& what) {
  const auto now = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex_);
  if (!active_) {
    start_ = now;
    first_ = bytes;
  }
  active_ = true;
  last_ = now;
  bytes_ = bytes;
  total_ = total;
  what_ = what;
}

void LoadState::done() {
  const std::lock_guard lock(mutex_);
  active_ = false;
}

std::string LoadState::json() const {
  const std::lock_guard lock(mutex_);
  if (!active_) return {};
  const double seconds = std::chrono::duration<double>(last_ - start_).count();
  const auto rate =
      seconds > 0 ? static_cast<std::uint64_t>(static_cast<double>(bytes_ - first_) / seconds) : 0;
  // Our own words: nothing in them needs escaping.
  return R"({"bytes":)" + std::to_string(bytes_) + R"(,"total_bytes":)" + std::to_string(total_) +
         R"(,"bytes_per_second":)" + std::to_string(rate) + R"(,"what":")" + what_ + "\"}";
}

}  // namespace moesaic
