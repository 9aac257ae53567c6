#include "common/metrics/energy.hpp"

#include <algorithm>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>

namespace moesaic::metrics {
namespace {

std::optional<std::uint64_t> number_in(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (!(file >> value)) return std::nullopt;
  return value;
}

}  // namespace

EnergyMeter::EnergyMeter(const std::filesystem::path& folder) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const auto name = entry.path().filename().string();
    // intel-rapl:0 is a package, intel-rapl:0:1 a part of it; AMD's are named the same.
    if (!name.starts_with("intel-rapl:") || std::count(name.begin(), name.end(), ':') != 1)
      continue;
    const auto now = number_in(entry.path() / "energy_uj");
    const auto range = number_in(entry.path() / "max_energy_range_uj");
    if (now && range) packages_.push_back({entry.path() / "energy_uj", *range, *now});
  }
}

double EnergyMeter::joules() {
  for (auto& package : packages_) {
    const auto now = number_in(package.file);
    if (!now) continue;
    total_uj_ += *now >= package.last_uj ? *now - package.last_uj
                                         : package.range_uj - package.last_uj + *now;
    package.last_uj = *now;
  }
  return static_cast<double>(total_uj_) * 1e-6;
}

}  // namespace moesaic::metrics
