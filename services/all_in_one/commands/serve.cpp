#include "actors/supervisor/program.hpp"
#include "common/config/keys.hpp"
#include "services/all_in_one/all_in_one.hpp"
#include "services/all_in_one/commands/commands.hpp"

namespace moesaic {

void add_serve(CLI::App& app, int& status) {
  auto* command =
      app.add_subcommand("serve", "serve a model over HTTP: every service in this process");
  const auto keys = std::make_shared<const std::vector<SettingSpec>>(select_keys(
      {"http", "model", "chat", "engine", "kv", "vision", "limits", "metrics", "trace", "log"}));
  const auto options = std::make_shared<SettingOptions>();
  add_setting_options(*command, *keys, *options);
  command->callback([keys, options, &status] {
    if (const auto done = run_service("moesaic serve", *keys, *options, AllInOne::start); !done)
      status = report(done.error());
  });
}

}  // namespace moesaic
