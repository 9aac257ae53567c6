#include "common/cluster/control_plane.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <set>

#include "common/cluster/member_list.hpp"
#include "common/cluster/placement_file.hpp"
#include "common/cluster/placement_resolve.hpp"
#include "common/cluster/placement_switch.hpp"
#include "common/cluster/view_builder.hpp"
#include "common/transport/failure.hpp"
#include "common/transport/wire.hpp"

namespace moesaic::cluster {
namespace {

using transport::Frame;
using transport::FrameType;
using transport::make_message;
using transport::PeerId;
using Clock = ControlPlane::Clock;

constexpr std::int64_t kMaxClockSkewUs = 5'000'000;

std::string clock_text(std::int64_t us) {
  const auto seconds = static_cast<std::time_t>(us / 1'000'000);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  std::array<char, 40> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  std::array<char, 64> with_ms{};
  std::snprintf(with_ms.data(), with_ms.size(), "%s.%03dZ", text.data(),
                static_cast<int>(us / 1000 % 1000));
  return with_ms.data();
}

bool dispatches(const Member& member) {
  return member.role == "decoder" || member.role == "router";
}

/// A view without what changes all the time, to see whether it must be told at once.
std::vector<std::byte> skeleton(View view) {
  view.term = view.version = 0;
  for (auto& state : view.members) {
    Load load;
    load.ready = state.load.ready;
    load.draining = state.load.draining;
    state.load = load;
  }
  transport::ByteWriter writer;
  writer(view);
  return {writer.bytes().begin(), writer.bytes().end()};
}

}  // namespace

struct ControlPlane::Impl {
  /// A tool that waits for what comes of its kPlace or kDrain.
  struct Asker {
    PeerId peer = 0;
    std::uint64_t sequence = 0;
  };
  struct Peer {
    transport::Identity identity;
    std::string refusal;  ///< last one logged
  };

  explicit Impl(ControlConfig c)
      : config(std::move(c)),
        members({config.name, config.model_hash, config.version, transport::kWireVersion}) {}

  ControlConfig config;
  std::optional<PlacementFile> file;  ///< none: even ranges
  std::string yaml;                   ///< of `file`
  MemberList members;
  PlacementSwitch placement;
  std::map<PeerId, Peer> peers;
  ControlOutput out;

  bool leading = false;
  std::uint64_t term = 0;
  std::string leader;
  Clock::time_point leading_since{};
  std::uint32_t highest_epoch = 0;  ///< ever seen
  std::uint32_t stored_epoch = 0;   ///< in the registry

  // The change under way, or wanted.
  bool file_pending = false;  ///< `file` is new and has not been placed
  bool storing = false;       ///< the registry has been asked to store `yaml`
  Clock::time_point storing_since{};
  std::optional<Asker> asker;
  std::string yaml_before;  ///< `yaml` in force before the change
  Clock::time_point change_started{};
  std::uint64_t final_version = 0;  ///< all dispatchers must work with this view or a later one
  Clock::time_point repeated{};     ///< when it was pushed to them again
  std::string tried;                ///< shards for which no placement could be made
  std::string waiting_for;          ///< why there is no placement yet
  Clock::time_point last_tick{};
  Clock::time_point last_joined{};  ///< a shard

  std::shared_ptr<const View> view = std::make_shared<const View>();
  std::vector<std::byte> pushed;  ///< skeleton of the last view that was pushed
  bool pushing = false;           ///< this leader has begun to push views
  std::uint64_t version = 0;
  Clock::time_point pushed_at{};
  std::set<PeerId> need_view;  ///< registered since the last push

  void info(std::string text) { out.log.push_back({false, std::move(text)}); }
  void warn(std::string text) { out.log.push_back({true, std::move(text)}); }
  void send(PeerId to, Frame frame) {
    if (to != 0) out.messages.push_back({to, std::move(frame)});
  }
  bool alive(const std::string& shard) {
    const auto* entry = members.find("expert-shard", shard);
    return entry != nullptr && entry->state.alive;
  }

  // Frames.
  void take(PeerId peer, const Frame& frame, Clock::time_point now);
  Result<void> answer(PeerId peer, const Frame& frame, Clock::time_point now);
  Result<void> order(PeerId peer, const Frame& frame, Clock::time_point now);
  Result<void> join(PeerId peer, const Frame& frame, Clock::time_point now);
  void take_prepared(MemberList::Entry& entry, const Prepared& prepared, Clock::time_point now);
  void lose(const MemberList::Entry& entry, const std::string& why);
  void send_lease(PeerId peer);
  void look_at_clock(const Member& member);

  // Placement.
  std::vector<Member> eligible() const;
  std::string signature() const;
  Result<PlacementTable> target(const PlacementFile* from) const;
  Result<void> can_change() const;
  bool wants_change();
  bool outdated() const;
  void plan(Clock::time_point now);
  Result<void> change(Clock::time_point now);
  Result<PlacementSwitch> rehearse(const PlacementTable& next) const;
  Result<void> begin(PlacementTable next, Clock::time_point now);
  void abort(const std::string& why, Clock::time_point now);
  void advance(Clock::time_point now);
  void release(Clock::time_point now);
  void ask_shards(Clock::time_point now);
  void end_ask(const Result<void>& result);
  Result<void> place(const std::string& text, Clock::time_point now);
  Result<void> drain(const std::string& role, const std::string& name, Clock::time_point now);

  // Views.
  void settle(Clock::time_point now);
  void push(Clock::time_point now);
};

// ------------------------------------------------------------------ frames

void ControlPlane::Impl::send_lease(PeerId peer) {
  send(peer, make_message(FrameType::kLease,
                          Lease{term, leading, static_cast<std::uint32_t>(config.lease.count())}));
}

void ControlPlane::Impl::look_at_clock(const Member& member) {
  if (!config.wall_clock_us) return;
  const auto ours = config.wall_clock_us();
  const auto apart = member.clock_us - ours;
  if (std::abs(apart) <= kMaxClockSkewUs) return;
  std::array<char, 32> seconds{};
  std::snprintf(seconds.data(), seconds.size(), "%.1f", static_cast<double>(std::abs(apart)) / 1e6);
  warn("clocks are " + std::string(seconds.data()) + " s apart: " + member_text(member) + " says " +
       clock_text(member.clock_us) + ", router \"" + config.name + "\" " + clock_text(ours) +
       "; leases and deadlines do not depend on it");
}

Result<void> ControlPlane::Impl::join(PeerId peer, const Frame& frame, Clock::time_point now) {
  MOESAIC_TRY(const auto member, transport::read_message<Member>(frame));
  const auto& identity = peers[peer].identity;
  if (identity.role != member.role || identity.name != member.name)
    return fail(Errc::kInvalidArgument, member_text(member) + " registers on the connection of " +
                                            identity.role + " \"" + identity.name + "\"");
  MOESAIC_TRY(const auto joined, members.join(peer, member, now));
  peers[peer].refusal.clear();
  if (joined.new_life) {
    info(member_text(member) + " has joined" +
         (member.admin.empty() ? std::string() : ", " + member.admin));
    look_at_clock(member);
    if (member.role == "expert-shard") {
      placement.emptied(member.name);
      last_joined = now;
    }
  }
  need_view.insert(peer);
  send_lease(peer);
  return {};
}

void ControlPlane::Impl::lose(const MemberList::Entry& entry, const std::string& why) {
  warn(member_text(entry.state.member) + " is lost: " + why);
}

Result<void> ControlPlane::Impl::answer(PeerId peer, const Frame& frame, Clock::time_point now) {
  const bool tool = peers[peer].identity.role == "tool";
  switch (frame.type) {
    case FrameType::kRegister:
      return join(peer, frame, now);
    case FrameType::kHeartbeat: {
      MOESAIC_TRY(auto load, transport::read_message<Load>(frame));
      if (auto* entry = members.at(peer); entry != nullptr && !entry->state.alive)
        info(member_text(entry->state.member) + " is back");
      const auto* entry = members.heard(peer, std::move(load), now);
      if (entry == nullptr)
        return fail(Errc::kNotFound, "nobody has registered on this connection");
      highest_epoch = std::max(highest_epoch, entry->state.load.epoch);
      send_lease(peer);
      return {};
    }
    case FrameType::kPrepared: {
      MOESAIC_TRY(const auto prepared, transport::read_message<Prepared>(frame));
      auto* entry = members.at(peer);
      if (entry == nullptr || entry->state.member.role != "expert-shard") return {};
      take_prepared(*entry, prepared, now);
      return {};
    }
    case FrameType::kAdopted: {
      MOESAIC_TRY(const auto adopted, transport::read_message<Adopted>(frame));
      if (auto* entry = members.at(peer))
        entry->adopted = std::max(entry->adopted, adopted.version);
      return {};
    }
    case FrameType::kStatus: {
      auto told = make_message(FrameType::kView, *view);
      told.sequence = frame.sequence;
      send(peer, std::move(told));
      return {};
    }
    case FrameType::kPlace:
    case FrameType::kDrain:
      if (!tool) return fail(Errc::kInvalidArgument, "only tools place and drain");
      return order(peer, frame, now);
    case FrameType::kFailure:
    case FrameType::kStale:
      return {};
    default:
      return fail(Errc::kUnsupported, "frame of type " +
                                          std::to_string(static_cast<unsigned>(frame.type)) +
                                          " is not for a router's control");
  }
}

/// What a tool wants; it is answered when it is done.
Result<void> ControlPlane::Impl::order(PeerId peer, const Frame& frame, Clock::time_point now) {
  MOESAIC_CHECK(can_change());
  asker = Asker{peer, frame.sequence};
  const auto begun = [&]() -> Result<void> {
    if (frame.type == FrameType::kPlace) {
      MOESAIC_TRY(const auto message, transport::read_message<Place>(frame));
      return place(message.yaml, now);
    }
    MOESAIC_TRY(const auto message, transport::read_message<Drain>(frame));
    return drain(message.role, message.name, now);
  }();
  if (!begun) asker.reset();
  return begun;
}

void ControlPlane::Impl::take(PeerId peer, const Frame& frame, Clock::time_point now) {
  const auto known = peers.find(peer);
  if (known == peers.end()) return;  // its kDown has overtaken it
  const auto done = answer(peer, frame, now);
  if (done) return;
  send(peer, transport::make_failure(done.error(), frame.sequence));
  if (done.error().code == Errc::kNotFound) return;
  if (known->second.refusal == done.error().what) return;
  known->second.refusal = done.error().what;
  warn(done.error().what);
}

void ControlPlane::Impl::take_prepared(MemberList::Entry& entry, const Prepared& prepared,
                                       Clock::time_point now) {
  const auto& name = entry.state.member.name;
  entry.failure = prepared.error;
  if (prepared.error.empty()) {
    placement.prepared(name, prepared);
    return;
  }
  const auto text = "shard \"" + name + "\" cannot prepare placement " +
                    std::to_string(prepared.epoch) + ": " + prepared.error;
  if (placement.state() == PlacementSwitch::State::kSwitching &&
      prepared.epoch == placement.next().epoch)
    abort(text, now);
  else
    warn(text);
}

// ------------------------------------------------------------------ placement

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

// ------------------------------------------------------------------ views

void ControlPlane::Impl::push(Clock::time_point now) {
  auto next = build_view({members, placement, config.geometry, config.vision, waiting_for});
  next.term = term;
  next.leader = leader;
  next.version = version;
  if (!leading) {
    view = std::make_shared<const View>(std::move(next));
    return;
  }
  // A new leader says nothing while it does not know what is in force: members have the last view.
  pushing = pushing || placement.in_force().epoch != 0 || now - leading_since > 3 * config.settle;
  auto bones = skeleton(next);
  const bool changed = bones != pushed;
  if (pushing && (changed || now - pushed_at >= config.resend)) {
    // Versions grow across terms, too, so that no answer to an older one can be taken for a newer.
    const auto clock = config.wall_clock_us ? config.wall_clock_us() / 1000 : 0;
    version = next.version = std::max(version + 1, static_cast<std::uint64_t>(clock));
    pushed = std::move(bones);
    pushed_at = now;
    for (const auto& [key, entry] : members.all())
      if (entry.state.alive) send(entry.peer, make_message(FrameType::kView, next));
    need_view.clear();
  }
  view = std::make_shared<const View>(std::move(next));
  if (!pushing) return;
  for (const auto peer : need_view) send(peer, make_message(FrameType::kView, *view));
  need_view.clear();
}

/// Draws the conclusions from whatever has happened.
void ControlPlane::Impl::settle(Clock::time_point now) {
  plan(now);
  advance(now);
  ask_shards(now);
  push(now);
}

// ------------------------------------------------------------------ the class

ControlPlane::ControlPlane(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ControlPlane::~ControlPlane() = default;
ControlPlane::ControlPlane(ControlPlane&&) noexcept = default;
ControlPlane& ControlPlane::operator=(ControlPlane&&) noexcept = default;

Result<ControlPlane> ControlPlane::make(ControlConfig config) {
  auto impl = std::make_unique<Impl>(std::move(config));
  if (!impl->config.placement_yaml.empty()) {
    MOESAIC_TRY(impl->file,
                parse_placement(impl->config.placement_yaml, impl->config.placement_name));
    MOESAIC_CHECK(check_placement(*impl->file, impl->config.geometry));
    impl->yaml = impl->yaml_before = impl->config.placement_yaml;
  }
  return ControlPlane(std::move(impl));
}

void ControlPlane::on_event(const transport::Event& event, Clock::time_point now) {
  switch (event.kind) {
    case transport::Event::Kind::kUp:
      impl_->peers[event.peer] = {event.identity, {}};
      break;
    case transport::Event::Kind::kDown:
      impl_->peers.erase(event.peer);
      impl_->need_view.erase(event.peer);
      if (impl_->asker && impl_->asker->peer == event.peer) impl_->asker.reset();
      if (const auto* entry = impl_->members.closed(event.peer, now))
        impl_->lose(*entry, event.detail.empty() ? "connection closed" : event.detail);
      break;
    case transport::Event::Kind::kFrame:
      impl_->take(event.peer, event.frame, now);
      break;
    case transport::Event::Kind::kWoken:
      return;
  }
  impl_->settle(now);
}

void ControlPlane::on_registry(const RegistryEvent& event, Clock::time_point now) {
  auto& s = *impl_;
  switch (event.kind) {
    case RegistryEvent::Kind::kLeading:
      if (s.leading && s.term == event.term) return;
      s.leading = true;
      s.term = event.term;
      s.leader = s.config.name;
      s.leading_since = now;
      s.pushing = false;
      s.pushed.clear();
      s.placement.reset();
      for (auto& [key, entry] : s.members.all()) {
        entry.adopted = 0;
        entry.asked = 0;
        entry.release_due = true;
        s.need_view.insert(entry.peer);
        s.send_lease(entry.peer);
      }
      s.info("router \"" + s.config.name + "\" leads, term " + std::to_string(event.term));
      break;
    case RegistryEvent::Kind::kFollowing:
      if (s.leading)
        s.warn("router \"" + s.config.name + "\" leads no longer" +
               (event.leader.empty() ? std::string() : ", router \"" + event.leader + "\" does"));
      s.leading = false;
      s.term = std::max(s.term, event.term);
      s.leader = event.leader;
      s.storing = false;
      s.placement.reset();
      s.waiting_for = "router \"" + s.config.name + "\" does not lead";
      s.end_ask(fail(Errc::kUnavailable, s.waiting_for));
      break;
    case RegistryEvent::Kind::kPlacement: {
      s.storing = false;
      s.stored_epoch = std::max(s.stored_epoch, event.epoch);
      std::optional<PlacementFile> file;
      if (!event.yaml.empty()) {
        auto parsed = parse_placement(event.yaml, "placement");
        const auto good = parsed ? check_placement(*parsed, s.config.geometry)
                                 : Result<void>(tl::make_unexpected(parsed.error()));
        if (!good) {
          s.warn("the stored placement is not taken: " + good.error().what);
          s.end_ask(good);
          break;
        }
        file = std::move(*parsed);
      }
      s.file = std::move(file);
      s.yaml = event.yaml;
      s.file_pending = true;
      s.tried.clear();
      break;
    }
  }
  s.settle(now);
}

void ControlPlane::tick(Clock::time_point now) {
  // A stopped process has heard nobody: that is not the members' fault.
  if (const auto gap = now - impl_->last_tick;
      impl_->last_tick != Clock::time_point{} && gap > impl_->config.lease / 2)
    for (auto& [key, entry] : impl_->members.all()) entry.heard += gap;
  impl_->last_tick = now;
  for (const auto& key : impl_->members.expire(now, impl_->config.lease, impl_->config.forget)) {
    if (const auto* entry = impl_->members.find(key.first, key.second))
      impl_->lose(*entry,
                  "no heartbeat for " + std::to_string(impl_->config.lease.count()) + " ms");
  }
  if (impl_->storing && now - impl_->storing_since > 10 * impl_->config.lease)
    store_failed({Errc::kDeadlineExceeded, "the registry does not answer"});
  impl_->settle(now);
}

void ControlPlane::store_failed(const Error& error) {
  if (!impl_->storing) return;
  impl_->storing = false;
  impl_->warn("placement is not stored: " + error.what);
  impl_->end_ask(tl::make_unexpected(error));
}

Result<void> ControlPlane::place(const std::string& yaml, Clock::time_point now) {
  return impl_->place(yaml, now);
}

Result<void> ControlPlane::drain(const std::string& role, const std::string& name,
                                 Clock::time_point now) {
  auto done = impl_->drain(role, name, now);
  impl_->settle(now);
  return done;
}

ControlOutput ControlPlane::take_output() { return std::exchange(impl_->out, {}); }
const std::shared_ptr<const View>& ControlPlane::view() const { return impl_->view; }
bool ControlPlane::leading() const { return impl_->leading; }

}  // namespace moesaic::cluster
