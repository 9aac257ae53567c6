#include "common/base/machine.hpp"

#include <fstream>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace moesaic {

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name"))
      if (const auto colon = line.find(": "); colon != std::string::npos)
        return line.substr(colon + 2);
  return "unknown";
}

bool on_virtual_machine() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned kHypervisor = 1U << 31;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & kHypervisor) != 0;
#else
  return false;
#endif
}

}  // namespace moesaic
