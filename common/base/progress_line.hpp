#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace moesaic {

/// One line on a terminal's standard error, rewritten a few times a second and cleared at the end;
/// nothing elsewhere.
class ProgressLine {
 public:
  /// @param verb  what is being done, e.g. "loading"
  /// @param total bytes when it is done; 0: unknown
  explicit ProgressLine(std::string verb, std::uint64_t total = 0);
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void operator()(std::uint64_t bytes, const std::string& what);

 private:
  std::string verb_;
  std::uint64_t total_;
  bool terminal_;
  bool shown_ = false, told_ = false;
  std::uint64_t before_ = 0;  ///< bytes at the first call: they took no time that was seen
  std::chrono::steady_clock::time_point start_, last_;
};

}  // namespace moesaic
