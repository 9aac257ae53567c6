#include <sys/resource.h>
#include <sys/utsname.h>

#include <boost/json.hpp>
#include <cstdio>
#include <fstream>

#include "common/base/available_memory.hpp"
#include "common/base/machine.hpp"
#include "common/base/thread_pool.hpp"
#include "common/base/version.hpp"
#include "common/kernels/isa.hpp"
#include "common/metrics/metrics_page.hpp"
#include "services/all_in_one/commands/commands.hpp"

namespace moesaic {
namespace {

std::string huge_pages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string line;
  std::getline(file, line);
  const auto open = line.find('[');
  const auto close = line.find(']');
  return open == std::string::npos || close == std::string::npos
             ? "unknown"
             : line.substr(open + 1, close - open - 1);
}

void run(bool as_json) {
  std::vector<std::string> levels;
  for (const auto isa : available_isas()) levels.emplace_back(isa_name(isa));
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  utsname system{};
  ::uname(&system);
  if (as_json) {
    const boost::json::value facts = {
        {"version", kVersion},
        {"isa",
         {{"available", boost::json::value_from(levels)}, {"active", isa_name(active_isa())}}},
        {"cpu", {{"name", cpu_name()}, {"usable", usable_cpus()}}},
        {"memory",
         {{"available_bytes", available_memory()}, {"transparent_huge_pages", huge_pages()}}},
        {"limits", {{"open_files", files.rlim_cur}}},
        {"system", {{"kernel", system.release}, {"machine", system.machine}}},
        {"demo_model", demo_model_dir().string()},
    };
    std::printf("%s\n", boost::json::serialize(facts).c_str());
    return;
  }
  std::string line;
  for (const auto& level : levels) line += (line.empty() ? "" : ", ") + level;
  std::printf("moesaic %s\n", kVersion);
  std::printf("CPU          %s, %u usable\n", cpu_name().c_str(), usable_cpus());
  std::printf("levels       %s (active: %s)\n", line.c_str(),
              std::string(isa_name(active_isa())).c_str());
  std::printf("memory       %.1f GiB available, transparent huge pages %s\n",
              static_cast<double>(available_memory()) / (1U << 30), huge_pages().c_str());
  std::printf("open files   %llu\n", static_cast<unsigned long long>(files.rlim_cur));
  std::printf("kernel       %s %s\n", system.release, system.machine);
  std::printf("demo model   %s\n", demo_model_dir().c_str());
}

}  // namespace

void add_doctor(CLI::App& app, int& status) {
  auto* command = app.add_subcommand("doctor", "what this machine offers");
  const auto as_json = std::make_shared<bool>(false);
  command->add_flag("--json", *as_json, "print JSON");
  const auto page = std::make_shared<bool>(false);
  command->add_flag("--metrics", *page, "print the table of all metrics (ops/metrics.md)");
  command->callback([as_json, page, &status] {
    if (*page) {
      std::fputs(metrics::metrics_page().c_str(), stdout);
    } else {
      run(*as_json);
    }
    status = kExitOk;
  });
}

}  // namespace moesaic
