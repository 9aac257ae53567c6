#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/transport/key_folder.hpp"
#include "services/all_in_one/commands/commands.hpp"

namespace moesaic {
namespace {

struct KeyOptions {
  std::string folder;
  std::string role, name;
  std::vector<std::string> owners;  ///< role/name
  bool rotate = false;
};

Result<void> make(const KeyOptions& options, const std::string& role, const std::string& name) {
  MOESAIC_TRY(const auto key, transport::make_key(options.folder, role, name, options.rotate));
  std::printf("%s %s %s\n", role.c_str(), name.c_str(), key.c_str());
  return {};
}

Result<void> make_all(const KeyOptions& options) {
  for (const auto& owner : options.owners) {
    const auto slash = owner.find('/');
    if (slash == std::string::npos)
      return fail(Errc::kInvalidArgument, "\"" + owner + "\": role/name expected");
    const auto role = owner.substr(0, slash), name = owner.substr(slash + 1);
    MOESAIC_CHECK(transport::check_key_owner(role, name));
    // So that it can be said again when there are more members, or a container starts again.
    if (std::filesystem::exists(transport::secret_file(options.folder, role, name))) continue;
    MOESAIC_CHECK(make(options, role, name));
  }
  return {};
}

Result<void> list(const KeyOptions& options) {
  MOESAIC_TRY(const auto known, transport::read_known_keys(options.folder));
  for (const auto& key : known)
    std::printf("%s %s %s\n", key.role.c_str(), key.name.c_str(), key.public_key.c_str());
  return {};
}

Result<void> retire(const KeyOptions& options) {
  MOESAIC_TRY(const auto removed,
              transport::retire_keys(options.folder, options.role, options.name));
  std::printf("%zu old keys of %s/%s retired\n", removed, options.role.c_str(),
              options.name.c_str());
  return {};
}

}  // namespace

void add_keys(CLI::App& app, int& status) {
  auto* keys =
      app.add_subcommand("keys", "keys by which the services of a cluster know each other");
  keys->require_subcommand(1);
  const auto options = std::make_shared<KeyOptions>();
  const auto add = [&](const char* name, const char* help, auto run) {
    auto* command = keys->add_subcommand(name, help);
    command->add_option("--dir", options->folder, "folder of the keys")->required();
    command->callback([run, options, &status] {
      const auto done = run(*options);
      status = done ? kExitOk : report(done.error());
    });
    return command;
  };
  const auto add_owner = [&](CLI::App* command) {
    command->add_option("--role", options->role, "gateway, vision-encoder, router, ...")
        ->required();
    command->add_option("--name", options->name, "name of the instance")->required();
  };
  auto* one = add("make", "make a key pair and admit it",
                  [](const KeyOptions& o) { return make(o, o.role, o.name); });
  add_owner(one);
  one->add_flag("--rotate", options->rotate, "replace the key; the old public key stays valid");
  auto* all = add("make-all", "make a key pair for each of role/name that has none", make_all);
  all->add_option("owners", options->owners, "role/name ...")->required();
  add("list", "print role, name and public key of all who are admitted", list);
  add_owner(add("retire", "end the validity of the keys before the newest", retire));
}

}  // namespace moesaic
