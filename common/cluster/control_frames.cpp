#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "common/cluster/control_state.hpp"
#include "common/transport/failure.hpp"

namespace moesaic::cluster {

using transport::make_message;

namespace {

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

}  // namespace

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

}  // namespace moesaic::cluster
