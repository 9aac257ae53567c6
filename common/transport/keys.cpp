#include "common/transport/keys.hpp"

#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <array>
#include <cassert>

#include "common/base/read_file.hpp"
#include "common/transport/key_folder.hpp"

namespace moesaic::transport {
namespace {

constexpr std::size_t kMaxFileBytes = 1 << 20;

/// The pair in a secret file: the secret key, then the public key.
Result<KeyPair> read_secret(const std::filesystem::path& path) {
  struct stat status {};
  const bool there = ::stat(path.c_str(), &status) == 0;
  // Orchestrators hand a file of root's to a process by its group: that group may read, not write.
  const bool handed_over =
      there && status.st_uid == 0 && ::geteuid() != 0 && status.st_gid == ::getegid();
  if (there && (status.st_mode & (handed_over ? 037 : 077)) != 0) {
    std::array<char, 8> mode{};
    std::snprintf(mode.data(), mode.size(), "%04o", status.st_mode & 07777U);
    return fail(Errc::kInvalidArgument,
                path.string() + ": mode " + mode.data() +
                    ", others may read the secret key; 0600 expected (chmod 600)");
  }
  MOESAIC_TRY(const auto text, read_file(path, kMaxFileBytes));
  const auto first = text.find('\n');
  KeyPair pair;
  pair.secret_key = text.substr(0, first);
  if (first != std::string::npos)
    pair.public_key = text.substr(first + 1, text.find('\n', first + 1) - first - 1);
  std::array<char, 41> derived{};
  if (!is_key(pair.secret_key) || ::zmq_curve_public(derived.data(), pair.secret_key.c_str()) != 0)
    return fail(Errc::kCorrupt, path.string() + ":1: not a secret key of 40 characters (Z85)");
  if (pair.public_key != derived.data())
    return fail(Errc::kCorrupt, path.string() + ":2: not the public key of line 1");
  return pair;
}

}  // namespace

KeyPair make_key_pair() {
  std::array<char, 41> public_key{};
  std::array<char, 41> secret_key{};
  [[maybe_unused]] const auto status = ::zmq_curve_keypair(public_key.data(), secret_key.data());
  assert(status == 0 && "libzmq without CURVE");
  return {public_key.data(), secret_key.data()};
}

KeyRing::KeyRing(KeyPair own, std::vector<KnownKey> known)
    : own_(std::move(own)), known_(std::move(known)) {}

Result<KeyRing> KeyRing::load(const std::filesystem::path& folder, const std::string& role,
                              const std::string& name) {
  MOESAIC_TRY(auto own, read_secret(secret_file(folder, role, name)));
  MOESAIC_TRY(auto known, read_known_keys(folder));
  return KeyRing(std::move(own), std::move(known));
}

std::string KeyRing::owner_of(std::string_view public_key) const {
  for (const auto& key : known_)
    if (key.public_key == public_key) return key.role + "/" + key.name;
  return {};
}

std::string KeyRing::key_of(std::string_view role, std::string_view name) const {
  for (auto key = known_.rbegin(); key != known_.rend(); ++key)
    if (key->role == role && key->name == name) return key->public_key;
  return {};
}

}  // namespace moesaic::transport
