#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.hpp"
#include "common/transport/keys.hpp"

namespace moesaic::transport {

/// The files of a key folder (see KeyRing), written by `moesaic keys`. One process writes at a
/// time; a reader sees the old file or the new one.
std::filesystem::path secret_file(const std::filesystem::path& folder, std::string_view role,
                                  std::string_view name);

/// 40 characters of the Z85 alphabet.
bool is_key(std::string_view text);

/// @errors kInvalidArgument: no role of the product, or a name outside 1 to 64 of [a-z0-9.-]
[[nodiscard]] Result<void> check_key_owner(std::string_view role, std::string_view name);

/// The lines of `known_keys`, oldest first.
/// @errors kNotFound, kIo; kCorrupt: a malformed line, or a key twice (file and line)
[[nodiscard]] Result<std::vector<KnownKey>> read_known_keys(const std::filesystem::path& folder);

/// Makes a pair for role and name: the secret file (0600; the folder is made 0700) and one more
/// line of known_keys. With `rotate` the secret is replaced and the former public key stays known.
/// @return the new public key
/// @errors kInvalidArgument: there is a key and `rotate` is not set, or two are known already
/// (retire the old one first), or the folder is open to others; kIo; those of read_known_keys
[[nodiscard]] Result<std::string> make_key(const std::filesystem::path& folder,
                                           const std::string& role, const std::string& name,
                                           bool rotate);

/// Removes all but the newest public key of role and name from known_keys.
/// @return how many were removed
/// @errors kNotFound: no key of that owner; those of read_known_keys
[[nodiscard]] Result<std::size_t> retire_keys(const std::filesystem::path& folder,
                                              const std::string& role, const std::string& name);

}  // namespace moesaic::transport
