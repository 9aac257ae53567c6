#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>

#include "common/metrics/metrics.hpp"

namespace moesaic {

/// Keeps the number of open requests and the bytes they brought within bounds, and knows from the
/// rate at which they end when room is to be expected. Thread-safe.
class Admission : public std::enable_shared_from_this<Admission> {
 public:
  using Clock = std::chrono::steady_clock;

  static std::shared_ptr<Admission> make(std::size_t max_requests, std::size_t max_bytes);

  /// One open request; its end is the ticket's.
  class Ticket {
   public:
    Ticket(Ticket&&) noexcept = default;
    Ticket& operator=(Ticket&&) = delete;
    ~Ticket();

   private:
    friend class Admission;
    Ticket(std::shared_ptr<Admission> owner, std::size_t bytes)
        : owner_(std::move(owner)), bytes_(bytes) {}
    std::shared_ptr<Admission> owner_;
    std::size_t bytes_;
  };

  /// Nothing: full.
  std::optional<Ticket> enter(std::size_t bytes);

  /// Seconds until a place is likely to be free, 1 to 60: for the header Retry-After.
  unsigned retry_after_s() const;

  /// The estimate behind it: open requests over the rate of the last ends.
  /// @param ends  how many requests ended in `window`
  static unsigned estimate_s(std::size_t open, std::size_t ends, std::chrono::milliseconds window);

 private:
  Admission(std::size_t max_requests, std::size_t max_bytes);
  void leave(std::size_t bytes);

  const std::size_t max_requests_;
  const std::size_t max_bytes_;
  metrics::Gauge open_ = metrics::gauge("moesaic_request_open");
  mutable std::mutex mutex_;
  std::size_t requests_ = 0;
  std::size_t bytes_ = 0;
  std::array<Clock::time_point, 32> ends_{};  ///< a ring of the last
  std::size_t ended_ = 0;
};

}  // namespace moesaic
