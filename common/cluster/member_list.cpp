#include "common/cluster/member_list.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <optional>

namespace moesaic::cluster {
namespace {

constexpr std::size_t kMaxMembers = 512;
constexpr std::array kRoles = {"gateway", "vision-encoder", "router", "expert-shard", "decoder"};

bool valid_name(const std::string& name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-';
  });
}

/// Major and minor number of "1.2.3".
std::optional<std::pair<int, int>> release_of(const std::string& version) {
  int major = 0;
  int minor = 0;
  const auto* end = version.data() + version.size();
  const auto first = std::from_chars(version.data(), end, major);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != '.') return std::nullopt;
  if (std::from_chars(first.ptr + 1, end, minor).ec != std::errc()) return std::nullopt;
  return std::pair(major, minor);
}

bool one_release_apart(const std::string& a, const std::string& b) {
  if (a == b) return true;
  const auto ours = release_of(a);
  const auto theirs = release_of(b);
  return ours && theirs && ours->first == theirs->first &&
         std::abs(ours->second - theirs->second) <= 1;
}

/// Which life of a member, for texts that tell two apart.
std::string life_text(const Member& member) {
  return "incarnation " + std::to_string(member.incarnation) + " on host " +
         (member.host.empty() ? "?" : member.host) +
         (member.admin.empty() ? "" : ", " + member.admin);
}

}  // namespace

std::string member_text(const Member& member) { return member.role + " \"" + member.name + "\""; }

Result<void> MemberList::check(const Member& member) const {
  if (std::find(kRoles.begin(), kRoles.end(), member.role) == kRoles.end())
    return fail(Errc::kInvalidArgument, "\"" + member.role + "\" is not a role of members");
  if (!valid_name(member.name))
    return fail(Errc::kInvalidArgument, member.role +
                                            ": a name is 1 to 64 of a-z 0-9 . - and not \"" +
                                            member.name.substr(0, 64) + "\"");
  const auto router = "router \"" + ours_.name + "\"";
  if (member.wire_version != ours_.wire_version && member.wire_version + 1 != ours_.wire_version &&
      member.wire_version != ours_.wire_version + 1)
    return fail(Errc::kUnsupported, member_text(member) + " speaks wire version " +
                                        std::to_string(member.wire_version) + ", " + router + " " +
                                        std::to_string(ours_.wire_version) + ": at most one apart");
  if (!one_release_apart(ours_.version, member.version))
    return fail(Errc::kUnsupported, member_text(member) + " is version " + member.version + ", " +
                                        router + " " + ours_.version +
                                        ": at most one minor release apart");
  if (!member.model_hash.empty() && !ours_.model_hash.empty() &&
      member.model_hash != ours_.model_hash)
    return fail(Errc::kUnsupported, member_text(member) + " serves model " + member.model_hash +
                                        ", " + router + " " + ours_.model_hash);
  return {};
}

Result<MemberList::Joined> MemberList::join(transport::PeerId peer, const Member& member,
                                            Clock::time_point now) {
  MOESAIC_CHECK(check(member));
  if (const auto* other = at(peer); other != nullptr && (other->state.member.role != member.role ||
                                                         other->state.member.name != member.name))
    return fail(Errc::kInvalidArgument, member_text(member) + " registers where " +
                                            member_text(other->state.member) + " has");
  auto* known = find(member.role, member.name);
  if (known != nullptr) {
    const auto& there = known->state.member;
    if (known->peer != peer && known->state.alive)
      return fail(Errc::kUnavailable, member_text(member) + " of " + life_text(member) +
                                          " is refused: one of " + life_text(there) + " is alive");
    if (member.incarnation < there.incarnation)
      return fail(Errc::kUnavailable, member_text(member) + " of " + life_text(member) +
                                          " is refused: it is over since " + life_text(there) +
                                          " has registered");
  } else if (entries_.size() >= kMaxMembers) {
    return fail(Errc::kOverloaded,
                member_text(member) + ": " + std::to_string(kMaxMembers) + " members are known");
  }
  const bool new_life = known == nullptr || known->state.member.incarnation != member.incarnation;
  auto& entry = entries_[{member.role, member.name}];
  if (new_life) entry = {};
  if (entry.peer != peer) {
    entry.adopted = 0;
    entry.asked = 0;
    entry.release_due = !new_life;
  }
  entry.state.member = member;
  entry.state.alive = true;
  entry.peer = peer;
  entry.heard = now;
  return Joined{&entry, new_life};
}

MemberList::Entry* MemberList::heard(transport::PeerId peer, Load load, Clock::time_point now) {
  auto* entry = at(peer);
  if (entry == nullptr) return nullptr;
  entry->state.load = std::move(load);
  entry->state.load.draining = entry->state.load.draining || entry->drained;
  entry->state.alive = true;
  entry->heard = now;
  return entry;
}

MemberList::Entry* MemberList::closed(transport::PeerId peer, Clock::time_point now) {
  auto* entry = at(peer);
  if (entry == nullptr) return nullptr;
  entry->peer = 0;
  if (entry->state.alive) entry->lost = now;
  entry->state.alive = false;
  return entry;
}

std::vector<MemberList::Key> MemberList::expire(Clock::time_point now,
                                                std::chrono::milliseconds lease,
                                                std::chrono::milliseconds forget) {
  std::vector<Key> ended;
  for (auto& [key, entry] : entries_) {
    if (!entry.state.alive || now - entry.heard <= lease) continue;
    entry.state.alive = false;
    entry.lost = now;
    ended.push_back(key);
  }
  std::erase_if(entries_, [&](const auto& item) {
    return !item.second.state.alive && now - item.second.lost > forget;
  });
  return ended;
}

MemberList::Entry* MemberList::at(transport::PeerId peer) {
  if (peer == 0) return nullptr;
  for (auto& [key, entry] : entries_)
    if (entry.peer == peer) return &entry;
  return nullptr;
}

MemberList::Entry* MemberList::find(const std::string& role, const std::string& name) {
  const auto it = entries_.find({role, name});
  return it == entries_.end() ? nullptr : &it->second;
}

}  // namespace moesaic::cluster
