#include "common/transport/handshake.hpp"

#include <algorithm>

#include "common/transport/bytes.hpp"
#include "common/transport/wire.hpp"

namespace moesaic::transport {
namespace {

constexpr std::size_t kMaxText = 64;

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= kMaxText &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.-") == std::string_view::npos;
}

bool is_short_text(std::string_view text) {
  return text.size() <= kMaxText &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

/// "role/name (version, model hash)" without what is not known.
std::string described(const Identity& who) {
  std::string inside = who.version;
  if (!who.model_hash.empty()) {
    if (!inside.empty()) inside += ", ";
    inside += "model " + who.model_hash;
  }
  return full_name(who) + (inside.empty() ? "" : " (" + inside + ")");
}

std::string reason(const Hello& peer, const Expectation& expected) {
  if (peer.wire_version < kOldestWireVersion || peer.wire_version > kWireVersion)
    return "it speaks wire version " + std::to_string(peer.wire_version) + ", versions " +
           std::to_string(kOldestWireVersion) + " to " + std::to_string(kWireVersion) +
           " are spoken here";
  const auto& who = peer.identity;
  if (!expected.key_owner.empty() && expected.key_owner != full_name(who))
    return "its key is that of " + std::string(expected.key_owner);
  const auto* roles = expected.accepted_roles;
  if (roles != nullptr && !roles->empty() &&
      std::find(roles->begin(), roles->end(), who.role) == roles->end()) {
    std::string accepted;
    for (const auto& role : *roles) accepted += (accepted.empty() ? "" : ", ") + role;
    return "only these roles are served here: " + accepted;
  }
  const auto& ours = expected.self->model_hash;
  if (!ours.empty() && !who.model_hash.empty() && ours != who.model_hash)
    return "model hash differs";
  if (who.incarnation < expected.min_incarnation)
    return "incarnation " + std::to_string(who.incarnation) + " is over, " +
           std::to_string(expected.min_incarnation) + " has been seen";
  return {};
}

}  // namespace

std::string full_name(const Identity& identity) { return identity.role + "/" + identity.name; }

Result<Hello> read_hello(const Frame& frame) {
  MOESAIC_TRY(auto hello, read_message<Hello>(frame));
  const auto& who = hello.identity;
  if (!is_name(who.role) || !is_name(who.name) || !is_short_text(who.model_hash) ||
      !is_short_text(who.version) || !is_short_text(who.host))
    return fail(Errc::kCorrupt, "hello: a role, name or text that is empty, long or unprintable");
  return hello;
}

std::string refusal(const Hello& peer, const Expectation& expected) {
  const auto why = reason(peer, expected);
  if (why.empty()) return {};
  return described(peer.identity) + " refused by " + described(*expected.self) + ": " + why;
}

}  // namespace moesaic::transport
