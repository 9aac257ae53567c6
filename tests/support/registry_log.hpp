#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <vector>

#include "common/cluster/registry.hpp"

namespace moesaic::test {

/// What a registry told, to be waited for. Outlives the registry.
class RegistryLog {
 public:
  using Event = cluster::RegistryEvent;

  std::function<void(Event)> sink() {
    return [this](Event event) {
      const std::lock_guard lock(mutex_);
      events_.push_back(std::move(event));
      news_.notify_all();
    };
  }
  std::vector<Event> events() const {
    const std::lock_guard lock(mutex_);
    return events_;
  }
  /// Whether `wanted` holds for all that was told so far, at some time within `limit`.
  bool wait(std::chrono::milliseconds limit,
            const std::function<bool(const std::vector<Event>&)>& wanted) {
    std::unique_lock lock(mutex_);
    return news_.wait_for(lock, limit, [&] { return wanted(events_); });
  }
  /// The last event about the lead.
  static const Event* standing(const std::vector<Event>& events) {
    const auto at = std::find_if(events.rbegin(), events.rend(), [](const Event& event) {
      return event.kind != Event::Kind::kPlacement;
    });
    return at == events.rend() ? nullptr : &*at;
  }
  static bool leads(const std::vector<Event>& events) {
    const auto* last = standing(events);
    return last != nullptr && last->kind == Event::Kind::kLeading;
  }
  bool wait_to_lead(std::chrono::milliseconds limit) { return wait(limit, leads); }
  bool wait_to_follow(const std::string& leader, std::chrono::milliseconds limit) {
    return wait(limit, [&](const std::vector<Event>& events) {
      const auto* last = standing(events);
      return last != nullptr && last->kind == Event::Kind::kFollowing && last->leader == leader;
    });
  }
  bool wait_for_placement(std::uint32_t epoch, std::chrono::milliseconds limit) {
    return wait(limit, [&](const std::vector<Event>& events) {
      return std::any_of(events.begin(), events.end(), [&](const Event& event) {
        return event.kind == Event::Kind::kPlacement && event.epoch == epoch;
      });
    });
  }
  std::uint64_t term() const {
    const std::lock_guard lock(mutex_);
    return leads(events_) ? standing(events_)->term : 0;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable news_;
  std::vector<Event> events_;
};

}  // namespace moesaic::test
