#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace moesaic::metrics {

/// Energy of all processor packages by the kernel's powercap (RAPL) files. One thread at a time.
class EnergyMeter {
 public:
  /// @param folder holds intel-rapl:<n>/{energy_uj,max_energy_range_uj}
  explicit EnergyMeter(const std::filesystem::path& folder = "/sys/class/powercap");
  /// Whether there is a package whose counter this user may read.
  bool readable() const { return !packages_.empty(); }
  /// Since construction. A counter that wrapped once between two calls is counted right; call at
  /// least every few minutes.
  double joules();

 private:
  struct Package {
    std::filesystem::path file;
    std::uint64_t range_uj = 0;  ///< the counter begins at 0 again after it
    std::uint64_t last_uj = 0;
  };
  std::vector<Package> packages_;
  std::uint64_t total_uj_ = 0;
};

}  // namespace moesaic::metrics
