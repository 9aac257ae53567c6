#include "common/cluster/membership.hpp"

#include <algorithm>
#include <utility>

#include "common/transport/failure.hpp"

namespace moesaic::cluster {

using transport::FrameType;

namespace {

constexpr std::size_t kAskedKept = 4;

}  // namespace

Membership::Membership(Member self, Options options, Callbacks callbacks)
    : self_(std::move(self)), options_(std::move(options)), callbacks_(std::move(callbacks)) {}

void Membership::send_register(transport::PeerId peer) {
  if (options_.wall_clock_us) self_.clock_us = options_.wall_clock_us();
  callbacks_.send(peer, transport::make_message(FrameType::kRegister, self_));
}

void Membership::on_event(const transport::Event& event, Clock::time_point now) {
  switch (event.kind) {
    case transport::Event::Kind::kUp:
      routers_[event.peer] = {};
      send_register(event.peer);
      return;
    case transport::Event::Kind::kDown:
      routers_.erase(event.peer);
      return;
    case transport::Event::Kind::kFrame:
      if (const auto router = routers_.find(event.peer); router != routers_.end())
        take(event.peer, router->second, event.frame, now);
      return;
    case transport::Event::Kind::kWoken:
      return;
  }
}

void Membership::take(transport::PeerId peer, Router& router, const transport::Frame& frame,
                      Clock::time_point now) {
  switch (frame.type) {
    case FrameType::kLease: {
      const auto lease = transport::read_message<Lease>(frame);
      if (!lease) return;
      router.leased = true;
      router.leading = lease->leader;
      router.heard = now;
      router.refusal.clear();
      if (lease->leader) leader_lost_ = false;
      return;
    }
    case FrameType::kFailure: {
      auto error = transport::read_failure(frame);
      router.leased = false;
      if (error.code == Errc::kNotFound) {  // it has forgotten us, or has restarted
        send_register(peer);
        return;
      }
      if (std::exchange(router.refusal, error.what) != error.what && callbacks_.on_refused)
        callbacks_.on_refused(error);
      return;
    }
    case FrameType::kView:
      router.heard = now;
      if (auto view = transport::read_message<View>(frame); view && view->placement.consistent())
        take_view(peer, std::move(*view));
      return;
    case FrameType::kPrepare: {
      const auto prepare = transport::read_message<Prepare>(frame);
      if (!prepare || !prepare->placement.consistent() || !callbacks_.on_prepare) return;
      if (epoch_ == 0) epoch_ = prepare->placement.epoch;
      asked_.emplace_back(prepare->placement.epoch, peer);
      if (asked_.size() > kAskedKept) asked_.pop_front();
      callbacks_.on_prepare(prepare->placement);
      return;
    }
    case FrameType::kRelease:
      if (const auto release = transport::read_message<Release>(frame);
          release && release->placement.consistent() && callbacks_.on_release) {
        epoch_ = std::max(epoch_, release->placement.epoch);
        callbacks_.on_release(release->placement);
      }
      return;
    case FrameType::kDrain:
      if (callbacks_.on_drain) callbacks_.on_drain();
      return;
    default:
      return;
  }
}

void Membership::take_view(transport::PeerId peer, View view) {
  if (view_ != nullptr) {
    const auto known = std::pair(view_->term, view_->version);
    const auto told = std::pair(view.term, view.version);
    if (told < known) return;
    if (told == known) {  // the router has not heard that we work with it
      view_from_ = peer;
      if (adopted_ != 0)
        callbacks_.send(peer, transport::make_message(FrameType::kAdopted, Adopted{adopted_}));
      return;
    }
    if (view.placement.epoch == 0) view.placement = view_->placement;
  }
  epoch_ = std::max(epoch_, view.placement.epoch);
  view_from_ = peer;
  view_ = std::make_shared<const View>(std::move(view));
  if (callbacks_.on_view) callbacks_.on_view(view_);
}

void Membership::tick(Clock::time_point now) {
  leader_lost_ = std::none_of(routers_.begin(), routers_.end(), [&](const auto& item) {
    return item.second.leading && now - item.second.heard <= options_.leader_timeout;
  });
  if (now < next_heartbeat_ && !load_urgent_) return;
  next_heartbeat_ = now + options_.heartbeat;
  load_urgent_ = false;
  auto load = load_;
  if (load.epoch == 0) load.epoch = epoch_;
  for (const auto& [peer, router] : routers_) {
    if (router.leased)
      callbacks_.send(peer, transport::make_message(FrameType::kHeartbeat, load));
    else
      send_register(peer);
  }
}

void Membership::set_load(Load load) {
  load_urgent_ = load_urgent_ || load.ready != load_.ready || load.draining != load_.draining;
  load_ = std::move(load);
}

void Membership::set_member(Member self) {
  self_ = std::move(self);
  for (const auto& [peer, router] : routers_) send_register(peer);
}

void Membership::prepared(Prepared prepared) {
  const auto asked = std::find_if(asked_.rbegin(), asked_.rend(),
                                  [&](const auto& item) { return item.first == prepared.epoch; });
  if (asked == asked_.rend() || !routers_.contains(asked->second)) return;
  callbacks_.send(asked->second, transport::make_message(FrameType::kPrepared, prepared));
}

void Membership::adopted(std::uint64_t version) {
  if (version == adopted_) return;
  adopted_ = version;
  if (routers_.contains(view_from_))
    callbacks_.send(view_from_, transport::make_message(FrameType::kAdopted, Adopted{version}));
}

bool Membership::registered() const {
  return std::any_of(routers_.begin(), routers_.end(),
                     [](const auto& item) { return item.second.leased; });
}

}  // namespace moesaic::cluster
