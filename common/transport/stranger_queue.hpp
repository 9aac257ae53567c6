#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <list>
#include <optional>
#include <unordered_map>

namespace moesaic::transport {

/// The connections of a listener that are not served, in the order they came: those that have not
/// said who they are, and those that were told to leave. When there are too many, of those that
/// have been there longest the one that has said least goes: one of ours needs milliseconds to say
/// who it is, and finds its place however many others come to stay. Not thread-safe.
class StrangerQueue {
 public:
  explicit StrangerQueue(std::size_t limit) : limit_(limit) {}

  void enter(int descriptor) {
    leave(descriptor);
    places_[descriptor] = order_.insert(order_.end(), descriptor);
  }
  void leave(int descriptor) {
    const auto found = places_.find(descriptor);
    if (found == places_.end()) return;
    order_.erase(found->second);
    places_.erase(found);
  }
  /// Takes the one that has to go, if there are too many.
  /// @param said of a descriptor: how many bytes came
  template <class Said>
  std::optional<int> take_surplus(const Said& said) {
    if (order_.size() <= limit_) return std::nullopt;
    const auto end =
        std::next(order_.begin(), std::min<std::ptrdiff_t>(kCompared, std::ssize(order_)));
    const int quietest =
        *std::min_element(order_.begin(), end, [&](int a, int b) { return said(a) < said(b); });
    leave(quietest);
    return quietest;
  }

 private:
  static constexpr std::ptrdiff_t kCompared = 16;

  std::size_t limit_;
  std::list<int> order_;
  std::unordered_map<int, std::list<int>::iterator> places_;
};

}  // namespace moesaic::transport
