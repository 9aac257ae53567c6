#include "common/http/line_splitter.hpp"

namespace moesaic {

LineSplitter::Outcome LineSplitter::feed(std::string_view piece,
                                         const std::function<bool(std::string_view)>& on_line) {
  while (!piece.empty()) {
    const auto end = piece.find('\n');
    const auto part = piece.substr(0, end);
    if (rest_.size() + part.size() > limit_) return Outcome::kTooLong;
    if (end == std::string_view::npos) {
      rest_ += part;
      break;
    }
    std::string_view line = part;
    if (!rest_.empty()) line = rest_ += part;
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    const bool more = on_line(line);
    rest_.clear();
    if (!more) return Outcome::kStopped;
    piece.remove_prefix(end + 1);
  }
  return Outcome::kMore;
}

}  // namespace moesaic
