#include <algorithm>
#include <set>

#include "common/cluster/control_state.hpp"
#include "common/cluster/placement_resolve.hpp"
#include "common/transport/failure.hpp"

namespace moesaic::cluster {

using transport::make_message;

namespace {

bool dispatches(const Member& member) {
  return member.role == "decoder" || member.role == "router";
}

}  // namespace

/// Shards that may be given experts.
std::vector<Member> ControlPlane::Impl::eligible() const {
  std::vector<Member> shards;
  for (const auto& [key, entry] : members.all())
    if (key.first == "expert-shard" && entry.state.alive && !entry.state.load.draining)
      shards.push_back(entry.state.member);
  return shards;
}

/// What a placement is made from: a failed attempt is repeated only when it changes.
std::string ControlPlane::Impl::signature() const {
  std::string text = std::to_string(stored_epoch);
  for (const auto& shard : eligible())
    text += " " + shard.name + "/" + std::to_string(shard.incarnation);
  return text;
}

Result<PlacementTable> ControlPlane::Impl::target(const PlacementFile* from) const {
  const auto shards = eligible();
  return from != nullptr ? resolve_placement(*from, config.geometry, shards)
                         : default_placement(config.geometry, shards);
}

Result<void> ControlPlane::Impl::can_change() const {
  if (!leading)
    return fail(Errc::kUnavailable, "router \"" + config.name + "\" does not lead" +
                                        (leader.empty() ? std::string(", nor does any it knows of")
                                                        : ", router \"" + leader + "\" does"));
  if (placement.state() != PlacementSwitch::State::kSteady || storing || file_pending) {
    const auto progress = placement.switched();
    return fail(Errc::kUnavailable, "a change to placement " + std::to_string(highest_epoch) +
                                        " is under way, " + std::to_string(progress.loaded) +
                                        " of " + std::to_string(progress.layers) + " layers");
  }
  return {};
}

/// A shard works by a newer placement than the one in force and refuses ours: it was away when
/// this leader numbered on.
bool ControlPlane::Impl::outdated() const {
  const auto& all = members.all();
  return std::any_of(all.begin(), all.end(), [&](const auto& item) {
    return item.first.first == "expert-shard" && item.second.state.alive &&
           item.second.state.load.epoch > placement.in_force().epoch;
  });
}

/// Something speaks for another placement than the one in force.
bool ControlPlane::Impl::wants_change() {
  const auto& now = placement.in_force();
  if (now.epoch == 0 || file_pending || outdated()) return true;
  for (const auto& name : now.shards) {
    const auto* entry = members.find("expert-shard", name);
    if (entry == nullptr || entry->state.load.draining) return true;
  }
  if (file) return false;
  const std::set<std::string> placed(now.shards.begin(), now.shards.end());
  const auto shards = eligible();
  return now.shards.size() < kMaxShards &&
         std::any_of(shards.begin(), shards.end(),
                     [&](const auto& s) { return !placed.contains(s.name); });
}

void ControlPlane::Impl::plan(Clock::time_point now) {
  if (!leading || placement.state() != PlacementSwitch::State::kSteady) return;
  if (!wants_change()) return;
  const auto settled = std::max(leading_since, last_joined) + config.settle;
  const bool first = placement.in_force().epoch == 0;
  const auto here = eligible().size();
  const auto needed = config.shards > 0 ? config.shards : file ? file->shards_needed() : 1;
  if (first && here < needed)
    waiting_for = "expert-shard (" + std::to_string(here) + " of " + std::to_string(needed) + ")";
  if ((first && here < needed) || (now < settled && !(file_pending && !first))) return;
  if (tried == signature()) return;

  const auto begun = change(now);
  if (begun) {
    tried.clear();
    waiting_for = "expert-shard (loading experts)";
    return;
  }
  tried = signature();
  waiting_for = begun.error().what;
  file_pending = false;
  warn("no other placement: " + begun.error().what);
  end_ask(begun);
}

/// Begins to place by the file, or evenly, over the shards there are.
Result<void> ControlPlane::Impl::change(Clock::time_point now) {
  MOESAIC_TRY(auto next, target(file ? &*file : nullptr));
  return begin(std::move(next), now);
}

/// The change begun, if shards have room for what they hold on the way.
Result<PlacementSwitch> ControlPlane::Impl::rehearse(const PlacementTable& next) const {
  auto begun = placement;
  MOESAIC_CHECK(begun.begin(next));
  for (const auto& [key, entry] : members.all()) {
    const auto capacity = entry.state.member.capacity_bytes;
    if (key.first != "expert-shard" || capacity == 0) continue;
    const auto both = begun.wanted(key.second);
    const auto bytes = both.epoch == 0 ? 0 : placed_bytes(both, config.geometry, 0);
    if (bytes > capacity)
      return fail(Errc::kTooLarge, "shard \"" + key.second + "\" would hold " + bytes_text(bytes) +
                                       " of experts while the placement changes, its capacity is " +
                                       bytes_text(capacity));
  }
  return begun;
}

Result<void> ControlPlane::Impl::begin(PlacementTable next, Clock::time_point now) {
  const auto& old = placement.in_force();
  file_pending = false;
  if (next.shards == old.shards && next.owners == old.owners && !outdated()) {
    end_ask({});
    return {};
  }
  next.epoch = std::max({next.epoch, highest_epoch + 1, stored_epoch});
  MOESAIC_TRY(auto begun, rehearse(next));
  info("placement " + std::to_string(old.epoch) + " changes to " + std::to_string(next.epoch) +
       ", " + std::to_string(next.shards.size()) +
       (next.shards.size() == 1 ? " shard" : " shards") +
       (file ? " by " + file->name : std::string(" in even ranges")));
  highest_epoch = next.epoch;
  placement = std::move(begun);
  change_started = now;
  return {};
}

void ControlPlane::Impl::abort(const std::string& why, Clock::time_point now) {
  const auto failed = std::to_string(placement.next().epoch);
  const auto before = placement.in_force().epoch;
  placement.abort();
  highest_epoch = std::max(highest_epoch, placement.in_force().epoch);
  final_version = 0;
  if (placement.in_force().epoch != before) {
    push(now);
    final_version = version;
  }
  warn("placement " + failed + " is given up, " + std::to_string(placement.in_force().epoch) +
       " stays: " + why);
  tried = signature();
  waiting_for = why;
  end_ask(fail(Errc::kUnavailable, why));
  if (yaml == yaml_before || before == 0) return;
  // What is stored is what is in force: the former file comes back as an event.
  yaml = yaml_before;
  out.store = {term, ++highest_epoch, yaml};
  storing = true;
  storing_since = now;
}

void ControlPlane::Impl::advance(Clock::time_point now) {
  if (placement.state() == PlacementSwitch::State::kSwitching) {
    for (const auto& name : placement.next().shards) {
      if (members.find("expert-shard", name) != nullptr) continue;
      abort("shard \"" + name + "\" has gone", now);
      return;
    }
    if (now - change_started > config.change_timeout) {
      const auto progress = placement.switched();
      abort("only " + std::to_string(progress.loaded) + " of " + std::to_string(progress.layers) +
                " layers switched in " + std::to_string(config.change_timeout.count() / 1000) +
                " s",
            now);
      return;
    }
    if (placement.advance([this](const std::string& shard) { return alive(shard); })) push(now);
    if (placement.state() == PlacementSwitch::State::kReleasing) {
      final_version = version;
      waiting_for.clear();
      yaml_before = yaml;
      info("placement " + std::to_string(placement.in_force().epoch) + " is in force");
    }
  }
  release(now);
}

void ControlPlane::Impl::release(Clock::time_point now) {
  if (placement.state() != PlacementSwitch::State::kReleasing) return;
  const bool repeat = now - repeated >= config.resend;
  bool waits = false;
  for (const auto& [key, entry] : members.all()) {
    if (!entry.state.alive || !dispatches(entry.state.member) || entry.adopted >= final_version)
      continue;
    waits = true;
    if (repeat) send(entry.peer, make_message(FrameType::kView, *view));
  }
  if (repeat) repeated = now;
  if (waits) return;
  placement.released();
  for (auto& [key, entry] : members.all()) {
    if (key.first != "expert-shard") continue;
    entry.release_due = true;
    if (!entry.drained || !entry.state.alive) continue;
    send(entry.peer, make_message(FrameType::kDrain, Drain{key.first, key.second}));
  }
  end_ask({});
}

/// kPrepare to shards that miss something, kRelease to those that may hold too much.
void ControlPlane::Impl::ask_shards(Clock::time_point now) {
  if (!leading) return;
  for (auto& [key, entry] : members.all()) {
    if (key.first != "expert-shard" || !entry.state.alive) continue;
    const auto& name = key.second;
    if (!placement.complete(name)) {
      const auto wanted = placement.wanted(name);
      const auto patience = entry.failure.empty() ? 5 * config.resend : 10 * config.resend;
      if (wanted.epoch == 0 || (entry.asked == wanted.epoch && now - entry.asked_at < patience))
        continue;
      entry.asked = wanted.epoch;
      entry.asked_at = now;
      send(entry.peer, make_message(FrameType::kPrepare, Prepare{wanted}));
    } else if (entry.release_due && placement.state() == PlacementSwitch::State::kSteady &&
               placement.in_force().epoch != 0) {
      entry.release_due = false;
      send(entry.peer, make_message(FrameType::kRelease, Release{placement.kept(name)}));
    }
  }
}

void ControlPlane::Impl::end_ask(const Result<void>& result) {
  if (!asker) return;
  auto frame = result ? make_message(FrameType::kView, *view)
                      : transport::make_failure(result.error(), asker->sequence);
  frame.sequence = asker->sequence;
  send(asker->peer, std::move(frame));
  asker.reset();
}

Result<void> ControlPlane::Impl::place(const std::string& text, Clock::time_point now) {
  MOESAIC_CHECK(can_change());
  MOESAIC_TRY(const auto parsed, parse_placement(text, "placement"));
  MOESAIC_TRY(auto next, target(&parsed));
  next.epoch = std::max(stored_epoch, highest_epoch) + 1;
  MOESAIC_CHECK(rehearse(next));
  out.store = {term, next.epoch, text};
  storing = true;
  storing_since = now;
  return {};
}

Result<void> ControlPlane::Impl::drain(const std::string& role, const std::string& name,
                                       Clock::time_point now) {
  auto* entry = members.find(role, name);
  if (entry == nullptr || !entry->state.alive)
    return fail(Errc::kNotFound, "no " + role + " \"" + name + "\" is alive");
  MOESAIC_CHECK(can_change());
  const auto& shards = placement.in_force().shards;
  entry->drained = entry->state.load.draining = true;
  if (role != "expert-shard" || std::find(shards.begin(), shards.end(), name) == shards.end()) {
    send(entry->peer, make_message(FrameType::kDrain, Drain{role, name}));
    end_ask({});
    return {};
  }
  const auto begun = change(now);
  if (begun) return {};
  entry->drained = entry->state.load.draining = false;
  return fail("shard \"" + name + "\" cannot be drained", begun.error());
}

}  // namespace moesaic::cluster
