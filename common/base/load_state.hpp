#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

namespace moesaic {

/// How far loading is, told by who loads and asked for by /ready. Thread-safe.
class LoadState {
 public:
  /// The first call after the start or after `done` starts the clock.
  void set(std::uint64_t bytes, std::uint64_t total, const std::string& what);
  /// Nothing is being loaded any more.
  void done();
  /// {"bytes": .., "total_bytes": .., "bytes_per_second": .., "what": ".."}; empty: nothing is
  /// being loaded.
  std::string json() const;

 private:
  mutable std::mutex mutex_;
  bool active_ = false;
  std::chrono::steady_clock::time_point start_{}, last_{};
  std::uint64_t first_ = 0, bytes_ = 0, total_ = 0;
  std::string what_;
};

}  // namespace moesaic
