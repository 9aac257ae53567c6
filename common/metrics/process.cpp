#include "common/metrics/process.hpp"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <memory>
#include <mutex>
#include <sstream>

#include "common/metrics/energy.hpp"
#include "common/metrics/metrics.hpp"

namespace moesaic::metrics {
namespace {

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

double resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t total = 0;
  std::uint64_t resident = 0;
  file >> total >> resident;
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

double open_descriptors() {
  DIR* const folder = opendir("/proc/self/fd");
  if (!folder) return 0;
  double count = 0;
  while (const auto* entry = readdir(folder)) count += entry->d_name[0] != '.';
  closedir(folder);
  return count - 1;  // the folder's own
}

/// Field 22 of /proc/self/stat, after the name in parentheses that may hold anything, plus the
/// machine's boot time.
double start_time() {
  std::string line;
  std::getline(std::ifstream("/proc/self/stat"), line);
  std::istringstream fields(line.substr(line.rfind(')') + 1));
  std::string skipped;
  for (int field = 3; field < 22; ++field) fields >> skipped;
  double ticks = 0;
  fields >> ticks;
  double boot = 0;
  std::ifstream stat("/proc/stat");
  for (std::string name; stat >> name;) {
    if (name == "btime") stat >> boot;
    std::getline(stat, skipped);
  }
  return boot + ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

/// A counter that follows a total kept by somebody else.
class Follower {
 public:
  explicit Follower(Counter counter) : counter_(counter) {}
  void reach(double total) {
    if (total > seen_) counter_.add(total - seen_);
    if (total > seen_) seen_ = total;
  }

 private:
  Counter counter_;
  double seen_ = 0;
};

class Collector {
 public:
  Collector(const std::string& node, const std::string& version)
      : cpu_(counter("moesaic_process_cpu_seconds_total")),
        faults_(counter("moesaic_moe_page_faults_total")),
        resident_(gauge("moesaic_process_resident_memory_bytes")),
        descriptors_(gauge("moesaic_process_open_fds")) {
    gauge("moesaic_process_info", {{"version", version}}).set(1);
    gauge("moesaic_process_start_time_seconds").set(start_time());
    if (energy_.readable())
      joules_ = std::make_unique<Follower>(
          counter("moesaic_engine_energy_joules_total", {{"node", node}}));
  }

  void collect() {
    const std::lock_guard lock(mutex_);
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    cpu_.reach(seconds(usage.ru_utime) + seconds(usage.ru_stime));
    faults_.reach(static_cast<double>(usage.ru_majflt));
    resident_.set(resident_bytes());
    descriptors_.set(open_descriptors());
    if (joules_) joules_->reach(energy_.joules());
  }

 private:
  std::mutex mutex_;
  Follower cpu_;
  Follower faults_;
  Gauge resident_;
  Gauge descriptors_;
  EnergyMeter energy_;
  std::unique_ptr<Follower> joules_;
};

}  // namespace

void collect_process(const std::string& node, const std::string& version) {
  before_expose([collector = std::make_shared<Collector>(node, version)] { collector->collect(); });
}

}  // namespace moesaic::metrics
