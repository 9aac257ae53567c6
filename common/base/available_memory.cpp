#include "common/base/available_memory.hpp"

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <string>

namespace moesaic {
namespace {

namespace fs = std::filesystem;

/// "name number" lines.
std::map<std::string, std::uint64_t> numbers_of(const fs::path& path) {
  std::map<std::string, std::uint64_t> numbers;
  std::ifstream file(path);
  for (std::string key; file >> key;) {
    std::uint64_t number = 0;
    if (file >> number) numbers[key] = number;
    file.clear();
    file.ignore(256, '\n');
  }
  return numbers;
}

std::uint64_t find(const std::map<std::string, std::uint64_t>& numbers, const std::string& key) {
  const auto at = numbers.find(key);
  return at == numbers.end() ? 0 : at->second;
}

std::uint64_t less(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

/// None: no limit ("max") or no such file.
std::optional<std::uint64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  return file >> number ? std::optional(number) : std::nullopt;
}

/// The group's path below the mount point; empty: none of version 2.
std::string own_group(const fs::path& root) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("0::/")) return line.substr(4);
  return {};
}

void apply_limit(const fs::path& group, MachineMemory& memory) {
  const auto limit = number_in(group / "memory.max");
  if (!limit) return;
  const auto used = number_in(group / "memory.current").value_or(0);
  const auto cached = find(numbers_of(group / "memory.stat"), "file");
  memory.total = std::min(memory.total, *limit);
  memory.available = std::min(memory.available, less(*limit, less(used, cached)));
}

}  // namespace

MachineMemory machine_memory(const fs::path& root) {
  const auto info = numbers_of(root / "proc/meminfo");
  MachineMemory memory;
  memory.total = find(info, "MemTotal:") * 1024;
  memory.available = find(info, "MemAvailable:") * 1024;
  const auto mounted = root / "sys/fs/cgroup";
  for (auto group = mounted / own_group(root);; group = group.parent_path()) {
    apply_limit(group, memory);
    if (group == mounted || !group.has_relative_path() || group.parent_path() == group) break;
  }
  return memory;
}

std::uint64_t available_memory() { return machine_memory().available; }

}  // namespace moesaic
