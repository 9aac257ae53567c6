#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/config/settings.hpp"

namespace moesaic {

/// Exit status of every program and command.
enum ExitStatus : int {
  kExitOk = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitBadInput = 3,   ///< configuration, model or input
  kExitResources = 4,  ///< memory, ports, files
};

/// Prints "moesaic: <text>" to standard error and gives the status that fits.
int report(const Error& error);

/// A service that runs until it is told to stop.
class RunningService {
 public:
  virtual ~RunningService() = default;
  /// Lines for people: what runs, how, and where.
  virtual std::string banner() const = 0;
  /// Refuses new work, lets open work end for as long as the settings say, ends.
  virtual void stop() = 0;
};
using StartService = std::function<Result<std::unique_ptr<RunningService>>(const Settings&)>;

/// What the command line gave: a file, and values by key.
struct SettingOptions {
  std::string config;
  std::map<std::string, std::string> flags;
  bool print_config = false;  ///< only write the keys as a file
};

/// Adds --config and a flag per key; short names where a key has one.
void add_setting_options(CLI::App& app, std::span<const SettingSpec> keys, SettingOptions& options);

/// Reads the settings, starts the service, prints its banner, waits for SIGTERM or SIGINT, stops
/// it; a second signal ends the process at once. systemd is told when it is ready and when it
/// stops.
/// @param program its name, as people start it
[[nodiscard]] Result<void> run_service(std::string_view program, std::span<const SettingSpec> keys,
                                       const SettingOptions& options, const StartService& start);

/// The main function of a program that is one service.
int service_main(int argc, char** argv, std::string_view name, std::string_view about,
                 std::span<const SettingSpec> keys, const StartService& start);

}  // namespace moesaic
