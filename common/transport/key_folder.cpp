#include "common/transport/key_folder.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <set>
#include <sstream>

#include "common/base/read_file.hpp"

namespace moesaic::transport {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxFileBytes = 1 << 20;
constexpr std::size_t kKeyCharacters = 40;
constexpr std::array<std::string_view, 6> kRoles = {"gateway",      "vision-encoder", "router",
                                                    "expert-shard", "decoder",        "tool"};
constexpr std::string_view kZ85 =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

fs::path known_file(const fs::path& folder) { return folder / "known_keys"; }

tl::unexpected<Error> io_error(const fs::path& path, const char* what) {
  return fail(Errc::kIo, path.string() + ": " + what + ": " + std::strerror(errno));
}

/// Makes the folder 0700, or checks that nobody else may write what is in it.
Result<void> prepare_folder(const fs::path& folder) {
  std::error_code code;
  if (folder.has_parent_path()) fs::create_directories(folder.parent_path(), code);
  if (::mkdir(folder.c_str(), 0700) == 0) return {};
  if (errno != EEXIST) return io_error(folder, "cannot make the folder");
  struct stat status {};
  if (::stat(folder.c_str(), &status) != 0) return io_error(folder, "cannot look at it");
  if (!S_ISDIR(status.st_mode)) return fail(Errc::kIo, folder.string() + ": not a folder");
  if ((status.st_mode & 077) != 0)
    return fail(Errc::kInvalidArgument,
                folder.string() + ": open to others; a folder of secret keys needs mode 0700");
  return {};
}

/// Writes a file beside `path` and puts it in its place.
Result<void> replace_file(const fs::path& path, const std::string& text, mode_t mode) {
  auto beside = path;
  beside += ".new";
  ::unlink(beside.c_str());
  const int fd = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) return io_error(beside, "cannot create it");
  const auto written = ::write(fd, text.data(), text.size());
  const bool complete = written == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  ::close(fd);
  if (!complete || ::rename(beside.c_str(), path.c_str()) != 0)
    return io_error(path, "cannot write it");
  return {};
}

Result<void> write_known_keys(const fs::path& folder, const std::vector<KnownKey>& known) {
  std::string text = "# role name public-key; of two keys of one owner the newer is below\n";
  for (const auto& key : known) text += key.role + ' ' + key.name + ' ' + key.public_key + '\n';
  return replace_file(known_file(folder), text, 0644);
}

}  // namespace

fs::path secret_file(const fs::path& folder, std::string_view role, std::string_view name) {
  return folder / (std::string(role) + '-' + std::string(name) + ".secret");
}

bool is_key(std::string_view text) {
  return text.size() == kKeyCharacters && text.find_first_not_of(kZ85) == std::string_view::npos;
}

Result<void> check_key_owner(std::string_view role, std::string_view name) {
  if (std::ranges::find(kRoles, role) == kRoles.end()) {
    std::string all;
    for (const auto known : kRoles) all += (all.empty() ? "" : ", ") + std::string(known);
    return fail(Errc::kInvalidArgument, "role \"" + std::string(role) + "\": one of " + all);
  }
  if (name.empty() || name.size() > 64 ||
      name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.-") != std::string_view::npos)
    return fail(Errc::kInvalidArgument,
                "name \"" + std::string(name) + "\": 1 to 64 of a-z, 0-9, dot and hyphen");
  return {};
}

Result<std::vector<KnownKey>> read_known_keys(const fs::path& folder) {
  const auto path = known_file(folder);
  MOESAIC_TRY(const auto text, read_file(path, kMaxFileBytes));
  std::vector<KnownKey> known;
  std::set<std::string> seen;
  std::istringstream lines(text);
  std::string line;
  for (std::size_t number = 1; std::getline(lines, line); ++number) {
    if (line.empty() || line.starts_with('#')) continue;
    const auto where = path.string() + ":" + std::to_string(number);
    std::istringstream words(line);
    KnownKey key;
    std::string rest;
    words >> key.role >> key.name >> key.public_key;
    if (!is_key(key.public_key) || words >> rest)
      return fail(Errc::kCorrupt, where + ": `role name public-key` expected");
    if (const auto owner = check_key_owner(key.role, key.name); !owner)
      return fail(Errc::kCorrupt, where + ": " + owner.error().what);
    if (!seen.insert(key.public_key).second)
      return fail(Errc::kCorrupt, where + ": this key is there twice");
    known.push_back(std::move(key));
  }
  return known;
}

Result<std::string> make_key(const fs::path& folder, const std::string& role,
                             const std::string& name, bool rotate) {
  MOESAIC_CHECK(check_key_owner(role, name));
  MOESAIC_CHECK(prepare_folder(folder));
  std::vector<KnownKey> known;
  if (fs::exists(known_file(folder))) {
    MOESAIC_TRY(known, read_known_keys(folder));
  }
  const auto owner = role + "/" + name;
  const auto there = std::ranges::count_if(
      known, [&](const auto& key) { return key.role == role && key.name == name; });
  const auto secret = secret_file(folder, role, name);
  if (!rotate && (there > 0 || fs::exists(secret)))
    return fail(Errc::kInvalidArgument,
                folder.string() + ": " + owner + " has a key; --rotate makes a second one");
  if (there > 1)
    return fail(Errc::kInvalidArgument,
                folder.string() + ": " + owner +
                    " has two valid keys; `moesaic keys retire` the old one first");
  const auto pair = make_key_pair();
  known.push_back({role, name, pair.public_key});
  // The public key first: between the two writes the old secret still matches a known key.
  MOESAIC_CHECK(write_known_keys(folder, known));
  MOESAIC_CHECK(replace_file(secret, pair.secret_key + '\n' + pair.public_key + '\n', 0600));
  return pair.public_key;
}

Result<std::size_t> retire_keys(const fs::path& folder, const std::string& role,
                                const std::string& name) {
  MOESAIC_TRY(auto known, read_known_keys(folder));
  const auto owned = [&](const auto& key) { return key.role == role && key.name == name; };
  const auto newest = std::find_if(known.rbegin(), known.rend(), owned);
  if (newest == known.rend())
    return fail(Errc::kNotFound, folder.string() + ": no key of " + role + "/" + name);
  const auto kept = newest->public_key;
  const auto removed =
      std::erase_if(known, [&](const auto& key) { return owned(key) && key.public_key != kept; });
  if (removed > 0) MOESAIC_CHECK(write_known_keys(folder, known));
  return removed;
}

}  // namespace moesaic::transport
