#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"

namespace moesaic::transport {

/// A CURVE key pair, both Z85 text of 40 characters.
struct KeyPair {
  std::string public_key;
  std::string secret_key;
};
[[nodiscard]] KeyPair make_key_pair();

/// A public key that may connect, and as whom. During rotation a role and name has two.
struct KnownKey {
  std::string role;
  std::string name;
  std::string public_key;
};

/// What one process knows (key_folder.hpp writes it): its own pair and whom it admits. Read from a
/// folder:
///   <role>-<name>.secret   mode 0600: this process's secret key (public key on the second line);
///                          0440 if it is root's and the process's group may read it, as
///                          orchestrators do
///   known_keys             lines `role name public-key`, # begins a comment
/// Immutable; thread-safe.
class KeyRing {
 public:
  KeyRing(KeyPair own, std::vector<KnownKey> known);
  /// @errors kIo, kCorrupt (file and line), kInvalidArgument: a secret file others may read
  [[nodiscard]] static Result<KeyRing> load(const std::filesystem::path& folder,
                                            const std::string& role, const std::string& name);

  const KeyPair& own() const { return own_; }
  const std::vector<KnownKey>& known() const { return known_; }
  /// Whom a public key belongs to, as `role/name`; empty: not admitted.
  std::string owner_of(std::string_view public_key) const;
  /// The newest public key of role and name; empty: none.
  std::string key_of(std::string_view role, std::string_view name) const;

 private:
  KeyPair own_;
  std::vector<KnownKey> known_;
};

}  // namespace moesaic::transport
