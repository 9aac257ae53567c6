#include "common/cluster/control_plane.hpp"

#include <algorithm>

#include "common/cluster/control_state.hpp"
#include "common/cluster/placement_resolve.hpp"
#include "common/cluster/view_builder.hpp"

namespace moesaic::cluster {

using transport::make_message;

namespace {

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
