#pragma once

#include <cstdint>
#include <filesystem>

namespace moesaic {

/// Memory of the machine, bytes. Where this process is in a control group with a limit (version 2,
/// as containers are), no more than that leaves.
struct MachineMemory {
  std::uint64_t total = 0;
  /// What can be had without swapping. Files in the page cache count as free, even if they are
  /// mapped: whoever maps weights subtracts them.
  std::uint64_t available = 0;
};

/// @param root of the file systems /proc and /sys, for tests
MachineMemory machine_memory(const std::filesystem::path& root = "/");

/// `machine_memory().available`
std::uint64_t available_memory();

}  // namespace moesaic
