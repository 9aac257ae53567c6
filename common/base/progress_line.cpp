#include "common/base/progress_line.hpp"

#include <unistd.h>

#include <cstdio>

namespace moesaic {

ProgressLine::ProgressLine(std::string verb, std::uint64_t total)
    : verb_(std::move(verb)),
      total_(total),
      terminal_(::isatty(STDERR_FILENO) != 0),
      start_(std::chrono::steady_clock::now()),
      last_(start_) {}

ProgressLine::~ProgressLine() {
  if (shown_) std::fputs("\r\x1b[K", stderr);
}

void ProgressLine::operator()(std::uint64_t bytes, const std::string& what) {
  const auto now = std::chrono::steady_clock::now();
  if (!told_) {
    told_ = true;
    before_ = bytes;
    start_ = now;
  }
  if (!terminal_ || now - last_ < std::chrono::milliseconds(200)) return;
  last_ = now;
  shown_ = true;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double rate = static_cast<double>(bytes - before_) / seconds;
  std::fprintf(stderr, "\r\x1b[K%s %s  %.1f GB, %.2f GB/s", verb_.c_str(), what.c_str(),
               static_cast<double>(bytes) * 1e-9, rate * 1e-9);
  if (total_ > bytes && rate > 0)
    std::fprintf(stderr, ", %.0f s left", static_cast<double>(total_ - bytes) / rate);
}

}  // namespace moesaic
