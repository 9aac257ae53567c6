#include "actors/gateway/admission.hpp"

#include <algorithm>

namespace moesaic {

Admission::Admission(std::size_t max_requests, std::size_t max_bytes)
    : max_requests_(max_requests), max_bytes_(max_bytes) {
  metrics::gauge("moesaic_request_open_limit").set(static_cast<double>(max_requests));
}

std::shared_ptr<Admission> Admission::make(std::size_t max_requests, std::size_t max_bytes) {
  return std::shared_ptr<Admission>(new Admission(max_requests, max_bytes));
}

Admission::Ticket::~Ticket() {
  if (owner_) owner_->leave(bytes_);
}

std::optional<Admission::Ticket> Admission::enter(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (requests_ >= max_requests_ || bytes > max_bytes_ - bytes_) return std::nullopt;
  ++requests_;
  bytes_ += bytes;
  open_.add(1);
  return Ticket(shared_from_this(), bytes);
}

void Admission::leave(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  --requests_;
  bytes_ -= bytes;
  open_.add(-1);
  ends_[ended_++ % ends_.size()] = Clock::now();
}

unsigned Admission::retry_after_s() const {
  const std::lock_guard lock(mutex_);
  const auto known = std::min(ended_, ends_.size());
  if (known == 0) return estimate_s(requests_, 0, {});
  const auto oldest = ended_ <= ends_.size() ? ends_[0] : ends_[ended_ % ends_.size()];
  return estimate_s(requests_, known,
                    std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - oldest));
}

unsigned Admission::estimate_s(std::size_t open, std::size_t ends,
                               std::chrono::milliseconds window) {
  constexpr double kLow = 1;
  constexpr double kHigh = 60;
  if (ends == 0) return static_cast<unsigned>(kLow);
  // A place is free once one of those open has ended; asking again then meets all others who do.
  const double seconds = static_cast<double>(window.count()) / 1000 / static_cast<double>(ends) *
                         static_cast<double>(open) / 2;
  return static_cast<unsigned>(std::clamp(seconds + 0.5, kLow, kHigh));
}

}  // namespace moesaic
