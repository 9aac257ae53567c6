#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace moesaic {

/// Puts lines together again that came in pieces cut anywhere. One thread.
class LineSplitter {
 public:
  enum class Outcome { kMore, kStopped, kTooLong };

  /// @param limit bytes of a line without its end
  explicit LineSplitter(std::size_t limit) : limit_(limit) {}

  /// Calls `on_line` for each line that is complete now, without "\n" or "\r\n"; false from it
  /// stops.
  Outcome feed(std::string_view piece, const std::function<bool(std::string_view)>& on_line);
  /// The bytes behind the last newline.
  const std::string& rest() const { return rest_; }

 private:
  std::size_t limit_;
  std::string rest_;
};

}  // namespace moesaic
