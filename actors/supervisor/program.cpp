#include "actors/supervisor/program.hpp"

#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "actors/supervisor/process_metrics.hpp"
#include "common/base/log.hpp"
#include "common/base/version.hpp"
#include "common/config/keys.hpp"
#include "common/kernels/isa.hpp"

namespace moesaic {
namespace {

constexpr std::pair<std::string_view, std::string_view> kShortNames[] = {
    {"model.dir", "--model"},
    {"model.compute", "--compute"},
    {"engine.experts", "--experts"},
    {"metrics.compat", "--metrics-compat"},
    {"http.insecure_no_auth", "--insecure-no-auth"},
};

LogLevel log_level(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warn") return LogLevel::kWarn;
  return name == "error" ? LogLevel::kError : LogLevel::kInfo;
}

/// One datagram to the service manager, where there is one: sd_notify(3).
void notify_manager(std::string_view state) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  if (path == nullptr || (path[0] != '/' && path[0] != '@')) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const auto length = std::strlen(path);
  if (length >= sizeof address.sun_path) return;
  std::memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = '\0';
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + length);
  ::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL,
           reinterpret_cast<const sockaddr*>(&address), size);
  ::close(fd);
}

Result<Settings> read_settings(std::span<const SettingSpec> keys, const SettingOptions& options) {
  Settings settings(keys);
  if (!options.config.empty()) MOESAIC_CHECK(settings.load_file(options.config));
  MOESAIC_CHECK(settings.load_environment());
  for (const auto& [key, value] : options.flags) MOESAIC_CHECK(settings.set(key, value, "flag"));
  return settings;
}

}  // namespace

int report(const Error& error) {
  std::fprintf(stderr, "moesaic: %s\n", error.what.c_str());
  switch (error.code) {
    case Errc::kInvalidArgument:
    case Errc::kNotFound:
    case Errc::kShapeMismatch:
    case Errc::kUnsupported:
    case Errc::kCorrupt:
    case Errc::kContextLength:
    case Errc::kTooLarge:
      return kExitBadInput;
    case Errc::kOverloaded:
    case Errc::kIo:
      return kExitResources;
    default:
      return kExitFailed;
  }
}

void add_setting_options(CLI::App& app, std::span<const SettingSpec> keys,
                         SettingOptions& options) {
  app.add_option("--config", options.config, "YAML file of settings");
  app.add_flag("--print-config", options.print_config,
               "print every setting with its default as YAML, and end");
  for (const auto& spec : keys) {
    const std::string key(spec.key);
    auto names = Settings::flag_name(spec.key);
    for (const auto& [name, flag] : kShortNames)
      if (name == spec.key) names += "," + std::string(flag);
    auto help = std::string(spec.help);
    if (!spec.choices.empty()) help += " (" + std::string(spec.choices) + ")";
    if (!spec.default_value.empty()) help += " [" + std::string(spec.default_value) + "]";
    auto* option = app.add_option_function<std::string>(
        names,
        [&options, key](const std::string& value) {
          options.flags[key] = value.empty() ? "yes" : value;
        },
        help);
    option->group(key.substr(0, key.find('.')));
    // A choice between yes and no may be given as a bare flag.
    if (spec.choices == "yes|no") option->expected(0, 1);
  }
  app.footer(
      "Each setting is also an environment variable (--http-port: MOESAIC_HTTP_PORT) and a key of "
      "the YAML file (http.port).");
}

Result<void> run_service(std::string_view program, std::span<const SettingSpec> keys,
                         const SettingOptions& options, const StartService& start) {
  if (options.print_config) {
    std::fputs(keys_as_yaml(keys, program).c_str(), stdout);
    return {};
  }
  MOESAIC_TRY(const auto settings, read_settings(keys, options));
  set_log_level(log_level(settings.text("log.level")));
  // Blocked before any thread starts, so that only the wait below sees them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  start_process_metrics(settings);
  MOESAIC_TRY(const auto service, start(settings));
  std::fputs(service->banner().c_str(), stdout);
  std::fflush(stdout);
  notify_manager("READY=1");
  int signal = 0;
  ::sigwait(&signals, &signal);
  notify_manager("STOPPING=1");
  log(LogLevel::kInfo, "stopping: open requests may end; a second signal stops at once");
  ::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  service->stop();
  return {};
}

int service_main(int argc, char** argv, std::string_view name, std::string_view about,
                 std::span<const SettingSpec> keys, const StartService& start) {
  // The instruction-set level is chosen before any kernel runs or thread starts.
  if (const auto isa = choose_isa(); !isa) return report(isa.error());
  CLI::App app{std::string(about), std::string(name)};
  app.set_version_flag("--version", std::string(name) + " " + kVersion);
  SettingOptions options;
  add_setting_options(app, keys, options);
  try {
    app.parse(argc, argv);
    const auto done = run_service(name, keys, options, start);
    return done ? kExitOk : report(done.error());
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  } catch (const std::bad_alloc&) {
    return report({Errc::kIo, "out of memory"});
  } catch (const std::exception& error) {
    return report({Errc::kInternal, error.what()});
  }
}

}  // namespace moesaic
