#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

namespace moesaic {

/// Reads mapped memory once, a byte a page, on a thread that runs only where nothing else wants the
/// CPU: in a virtual machine the first touch of a page that the disk has filled costs more than
/// reading it from the disk did. Until it is through, the first use of an expert is slower.
class PackWarmer {
 public:
  PackWarmer();
  /// Stops within a few milliseconds.
  ~PackWarmer() = default;
  PackWarmer(const PackWarmer&) = delete;
  PackWarmer& operator=(const PackWarmer&) = delete;

  /// @param owner keeps the memory mapped
  void add(std::shared_ptr<const void> owner, const std::byte* data, std::size_t bytes);
  /// Until everything added has been touched.
  void wait();

 private:
  struct Range {
    std::shared_ptr<const void> owner;
    const std::byte* data = nullptr;
    std::size_t bytes = 0;
  };
  void run(const std::stop_token& stop);

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Range> ranges_;
  bool busy_ = false;
  std::jthread thread_;  // last: ends before what it uses
};

}  // namespace moesaic
