#include "common/engine/remote_router.hpp"

#include <algorithm>

#include "common/base/log.hpp"
#include "common/transport/failure.hpp"
#include "common/transport/peer_metrics.hpp"

namespace moesaic {
namespace {

using transport::FrameType;
using Kind = transport::Event::Kind;

}  // namespace

RemoteRouter::RemoteRouter(const ModelConfig& config, std::shared_ptr<const RouterWeights> gates,
                           std::shared_ptr<TopologySource> source,
                           std::unique_ptr<transport::Endpoint> endpoint, ThreadPool& pool,
                           FanOutOptions options)
    : config_(config),
      source_(std::move(source)),
      endpoint_(std::move(endpoint)),
      pool_(pool),
      options_(options),
      dispatch_(config, std::move(gates)),
      fan_out_(config, *endpoint_, source_, options),
      topology_(std::make_shared<const Topology>()),
      subscription_(source_->subscribe([this] { endpoint_->wake(); })) {}

RemoteRouter::~RemoteRouter() { source_->unsubscribe(subscription_); }

void RemoteRouter::set_taps(TapSink* taps) {
  taps_ = taps;
  dispatch_.set_taps(taps);
}

/// Connects to the routers of this topology. Each decoder begins with another of them.
void RemoteRouter::use(const Topology& topology) {
  std::vector<Router> wanted;
  const auto count = topology.routers.size();
  const auto first = endpoint_->config().self.id();
  for (std::size_t i = 0; i < count; ++i) {
    const auto& address = topology.routers[(i + first) % count];
    const auto it = std::find_if(routers_.begin(), routers_.end(),
                                 [&](const Router& r) { return r.address == address; });
    if (it != routers_.end()) {
      wanted.push_back(*it);
      routers_.erase(it);
    } else if (const auto peer = endpoint_->connect(address)) {
      wanted.push_back({address, *peer, false});
      connected_by_ = Clock::now() + options_.connect_time;
    } else {
      log(LogLevel::kWarn, "router at " + to_string(address) + ": " + peer.error().what);
    }
  }
  for (const auto& router : routers_) endpoint_->close(router.peer);
  routers_ = std::move(wanted);
}

const RemoteRouter::Router* RemoteRouter::alive(transport::PeerId but) const {
  for (const auto& router : routers_)
    if (router.up && router.peer != but) return &router;
  return nullptr;
}

void RemoteRouter::begin_step() {
  for (auto& slot : slots_) forget(slot);
  refresh();
  neighbours_.begin_step(*topology_);
}

/// @pre no layer is under way
void RemoteRouter::refresh() {
  if (const auto latest = source_->latest(); latest != topology_) {
    topology_ = latest;
    use(*topology_);
  }
  if (alive() == nullptr) {
    if (Clock::now() < connected_by_) return;
    direct_ = true;
    fan_out_.refresh();
    return;
  }
  if (direct_) fan_out_.disconnect();
  direct_ = false;
  source_->report({topology_->version, {}});
}

void RemoteRouter::forget(Slot& slot) {
  if (slot.state == Slot::State::kAsked) {
    transport::Frame cancel;
    cancel.type = FrameType::kCancel;
    cancel.sequence = slot.sequence;
    (void)endpoint_->send(slot.peer, std::move(cancel));
  } else if (slot.state == Slot::State::kDirect) {
    fan_out_.abandon(slot.job);
  }
  slot.state = Slot::State::kIdle;
}

Result<void> RemoteRouter::submit(const MoeStep& step, std::size_t slot) {
  if (taps_ != nullptr) {
    Choices seen;
    dispatch_.choose(step, pool_, seen);
  }
  slots_[slot] = {};
  slots_[slot].step = step;
  ask(slots_[slot]);
  neighbours_.asked();
  return {};
}

/// Asks a live router, or, without one, the shards.
void RemoteRouter::ask(Slot& slot, transport::PeerId but) {
  for (const auto& router : routers_) {
    if (!router.up || router.peer == but) continue;
    auto frame = make_moe_rows(slot.step);
    frame.sequence = slot.sequence = fan_out_.next_sequence();
    frame.attempt = slot.attempt++;
    frame.budget_us = budget_of(slot.step.context.deadline);
    if (const auto sent = endpoint_->send(router.peer, std::move(frame)); !sent) {
      slot.failure = sent.error().what;
      continue;
    }
    slot.peer = router.peer;
    slot.timeout = Clock::now() + options_.question_timeout;
    slot.state = Slot::State::kAsked;
    return;
  }
  if (alive() != nullptr || Clock::now() < connected_by_) return wait(slot, slot.failure);
  direct_ = true;
  fan_out_.refresh();
  FanOutJob job{slot.step, {}};
  dispatch_.set_taps(nullptr);
  dispatch_.choose(slot.step, pool_, job.choices);
  dispatch_.set_taps(taps_);
  slot.job = fan_out_.start(std::move(job));
  slot.state = Slot::State::kDirect;
}

void RemoteRouter::wait(Slot& slot, const std::string& failure) {
  slot.failure = failure;
  slot.state = Slot::State::kWaits;
  slot.retry_at = Clock::now() + options_.retry;
}

void RemoteRouter::receive(Clock::time_point until) {
  auto event = endpoint_->receive(wait_until(until));
  if (event) handle(std::move(*event));
  const auto now = Clock::now();
  fan_out_.tick(now);
  tick(now);
}

void RemoteRouter::handle(transport::Event event) {
  if (event.kind == Kind::kFrame)
    for (auto& slot : slots_)
      if (slot.state == Slot::State::kAsked && slot.peer == event.peer &&
          slot.sequence == event.frame.sequence)
        return take_answer(slot, std::move(event.frame));
  const auto router = std::find_if(routers_.begin(), routers_.end(),
                                   [&](const Router& r) { return r.peer == event.peer; });
  const bool about_router = event.kind == Kind::kUp || event.kind == Kind::kDown;
  if (!about_router || router == routers_.end()) {
    if (direct_) fan_out_.handle(std::move(event));
    return;
  }
  router->up = event.kind == Kind::kUp;
  connected_by_ = {};
  if (router->up) {
    for (auto& slot : slots_)
      if (slot.state == Slot::State::kWaits) ask(slot);
    return;
  }
  log(LogLevel::kWarn, "router at " + to_string(router->address) + ": " + event.detail);
  for (auto& slot : slots_)
    if (slot.state == Slot::State::kAsked && slot.peer == event.peer) ask(slot);
}

void RemoteRouter::take_answer(Slot& slot, transport::Frame frame) {
  if (frame.type == FrameType::kMoeSums) {
    slot.answer = std::move(frame);
    slot.state = Slot::State::kDone;
  } else {
    wait(slot, frame.type == FrameType::kStale ? "the router has another placement by now"
                                               : transport::read_failure(frame).what);
  }
}

void RemoteRouter::tick(Clock::time_point now) {
  for (auto& slot : slots_) {
    if (slot.state == Slot::State::kWaits && slot.retry_at <= now) ask(slot);
    if (slot.state == Slot::State::kAsked && slot.timeout <= now) {
      slot.timeout = now + options_.question_timeout;
      if (alive(slot.peer) != nullptr) {
        const auto slow = slot.peer;
        forget(slot);
        ask(slot, slow);
      }
    }
  }
}

RemoteRouter::Clock::time_point RemoteRouter::next_tick() const {
  auto next = fan_out_.next_tick();
  for (const auto& slot : slots_) {
    const auto& context = slot.step.context;
    if (slot.state == Slot::State::kAsked) next = std::min({next, slot.timeout, context.deadline});
    if (slot.state == Slot::State::kWaits)
      next = std::min({next, slot.retry_at, context.deadline, context.patience});
  }
  return next;
}

bool RemoteRouter::stuck(const Slot& slot) const {
  if (slot.state == Slot::State::kDirect) return fan_out_.stuck(slot.job);
  return slot.state == Slot::State::kWaits;
}

Result<void> RemoteRouter::gather(const TakeSum& take, std::size_t index) {
  auto done = wait_for(take, index);
  neighbours_.answered();
  return done;
}

Result<void> RemoteRouter::wait_for(const TakeSum& take, std::size_t index) {
  auto& slot = slots_[index];
  const auto& context = slot.step.context;
  for (;;) {
    if (slot.state == Slot::State::kDone) {
      slot.state = Slot::State::kIdle;
      const auto rows = slot.step.x.rows;
      MOESAIC_TRY(const auto sums, read_moe_sums(slot.answer, rows, config_.hidden));
      for_rows(pool_, rows, [&](std::size_t r) { take(r, sums.compute, sums.row(r)); });
      return {};
    }
    if (slot.state == Slot::State::kDirect && fan_out_.ready(slot.job)) {
      slot.state = Slot::State::kIdle;
      return fan_out_.finish(slot.job, take, pool_);
    }
    if (interrupted_ && stuck(slot)) {
      forget(slot);
      return fail(Errc::kCancelled, "interrupted while an expert shard is missing");
    }
    const auto now = Clock::now();
    const bool waits = slot.state == Slot::State::kWaits;
    if (slot.state != Slot::State::kDirect &&
        (now >= context.deadline || (waits && now >= context.patience))) {
      forget(slot);
      transport::count_expired(transport::FrameType::kMoeRows);
      return fail(Errc::kExpertUnavailable,
                  waits ? slot.failure : "expert shard unavailable: the router does not answer");
    }
    receive(next_tick());
  }
}

void RemoteRouter::interrupt() {
  interrupted_ = true;
  endpoint_->wake();
}

bool RemoteRouter::idle() {
  while (!interrupted_) {
    refresh();
    receive(next_tick());
  }
  return true;
}

}  // namespace moesaic
