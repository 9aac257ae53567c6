#include "actors/gateway/gateway.hpp"

#include <algorithm>
#include <utility>

#include "actors/contracts/errors.hpp"
#include "common/base/log.hpp"
#include "common/transport/peer_metrics.hpp"

namespace moesaic {
namespace {

using Self = GatewayImpl::stateful_pointer<GatewayState>;
using std::chrono::milliseconds;

constexpr milliseconds kTick{250};
// Whoever works on a job ends it at its deadline; this much later nobody did.
constexpr milliseconds kDeadlineGrace{500};
// Submitting is a look at a queue.
constexpr milliseconds kSubmitTimeout{30'000};
// A request that kills its decoder again and again must not take all of them along.
constexpr unsigned kMaxAttempts = 8;
// Numbers of replayed submissions; those of jobs are below.
constexpr std::uint64_t kReplay = std::uint64_t{1} << 63;

void place(Self self, std::uint64_t id);

void notify_drains(Self self) {
  if (!self->state.draining || !self->state.jobs.empty()) return;
  for (auto& promise : std::exchange(self->state.drains, {})) promise.deliver(caf::unit);
}

template <class Handle>
GatewayMember<Handle>* find_member(std::vector<GatewayMember<Handle>>& members,
                                   const caf::actor_addr& who) {
  const auto it = std::find_if(members.begin(), members.end(),
                               [&](const auto& member) { return member.handle.address() == who; });
  return it == members.end() ? nullptr : &*it;
}

/// Who takes new work and has the least of it, but none of `passed`; null: nobody.
template <class Handle>
GatewayMember<Handle>* least_loaded(std::vector<GatewayMember<Handle>>& members,
                                    const std::vector<caf::actor_addr>& passed = {}) {
  GatewayMember<Handle>* best = nullptr;
  for (auto& member : members) {
    if (member.draining || (best != nullptr && member.open >= best->open)) continue;
    if (std::find(passed.begin(), passed.end(), member.handle.address()) != passed.end()) continue;
    best = &member;
  }
  return best;
}

/// Takes the job back from its decoder and encoders.
void withdraw(Self self, OpenJob& open) {
  auto& state = self->state;
  if (open.decoder) {
    if (auto* member = find_member(state.decoders, open.decoder)) --member->open;
    state.submissions.erase(open.submission);
    open.decoder = nullptr;
  }
  for (auto& encoder : open.encoders) {
    if (!encoder) continue;
    if (auto* member = find_member(state.encoders, encoder)) --member->open;
    encoder = nullptr;
  }
}

/// Delivers the last event of a job and forgets it.
void finish(Self self, std::uint64_t id, TokenEvent event) {
  const auto it = self->state.jobs.find(id);
  if (it == self->state.jobs.end()) return;
  withdraw(self, it->second);
  const auto job = std::move(it->second.job);
  self->state.jobs.erase(it);
  event.id = id;
  job->on_event(std::move(event));
  notify_drains(self);
}

void fail_job(Self self, std::uint64_t id, Error error) {
  TokenEvent event;
  event.finished = FinishReason::kError;
  event.error = std::move(error);
  finish(self, id, std::move(event));
}

/// Its decoder is lost: another may do it, as long as others may come.
void try_elsewhere(Self self, std::uint64_t id, Error error) {
  auto& state = self->state;
  auto& open = state.jobs.at(id);
  withdraw(self, open);
  if (state.policy == Members::kFixed || open.attempts >= kMaxAttempts)
    return fail_job(self, id, std::move(error));
  ++state.replays;
  place(self, id);
}

/// The decoder does not take it. Full ones are passed over, not waited for.
void refused(Self self, std::uint64_t id, std::uint64_t submission, const Error& error) {
  const auto it = self->state.jobs.find(id);
  if (it == self->state.jobs.end() || it->second.submission != submission) return;
  auto& open = it->second;
  if (error.code == Errc::kUnavailable) return try_elsewhere(self, id, error);
  open.full.push_back(open.decoder);
  if (error.code != Errc::kOverloaded || !least_loaded(self->state.decoders, open.full))
    return fail_job(self, id, error);
  withdraw(self, open);
  place(self, id);
}

void submit_to_decoder(Self self, std::uint64_t id, GatewayMember<DecoderActor>& member) {
  auto& open = self->state.jobs.at(id);
  open.submission = open.attempts == 0 ? id : kReplay + self->state.next_replay++;
  ++open.attempts;
  open.decoder = member.handle.address();
  ++member.open;
  self->state.submissions[open.submission] = id;
  auto request = std::make_shared<GenerateRequest>(open.job->request);
  request->id = open.submission;
  request->visuals = open.features;
  request->generated = open.tokens;
  self->request(member.handle, kSubmitTimeout, submit_atom::value,
                GenerateRequestPtr(std::move(request)), TokenSink(self))
      .then([] {},
            [self, id, submission = open.submission](const caf::error& error) {
              refused(self, id, submission, from_caf(error));
            });
}

void encode_visual(Self self, std::uint64_t id, std::size_t i,
                   GatewayMember<VisionEncoderActor>& member) {
  auto& open = self->state.jobs.at(id);
  const auto left = std::chrono::duration_cast<milliseconds>(open.job->request.deadline -
                                                             self->system().clock().now());
  const auto timeout = std::max(left + kDeadlineGrace, milliseconds{1});
  const auto who = member.handle.address();
  open.encoders[i] = who;
  ++member.open;
  // Null if the answer does not matter any more.
  const auto answered = [self, id, i, who]() -> OpenJob* {
    const auto it = self->state.jobs.find(id);
    if (it == self->state.jobs.end() || it->second.encoders[i] != who) return nullptr;
    if (auto* from = find_member(self->state.encoders, who)) --from->open;
    it->second.encoders[i] = nullptr;
    return &it->second;
  };
  auto item = std::make_shared<VisualItem>(*open.job->visuals[i]);
  item->trace = open.job->request.trace;
  self->request(member.handle, timeout, encode_atom::value, VisualItemPtr(std::move(item)))
      .then(
          [self, id, i, answered](const VisualFeaturesPtr& features) {
            auto* job = answered();
            if (job == nullptr) return;
            job->features[i] = features;
            if (--job->to_encode == 0) place(self, id);
          },
          [self, id, answered](const caf::error& error) {
            if (answered() == nullptr) return;
            const auto failure =
                error == caf::sec::request_timeout
                    ? Error{Errc::kDeadlineExceeded, "vision encoder: no answer in time"}
                    : from_caf(error);
            // Lost with its encoder: `went_down` finds another.
            if (failure.code == Errc::kUnavailable && self->state.policy == Members::kChanging)
              return place(self, id);
            fail_job(self, id, failure);
          });
}

/// Gives the job's next piece of work to whoever takes it; where nobody does it stays.
void place(Self self, std::uint64_t id) {
  auto& state = self->state;
  auto& open = state.jobs.at(id);
  if (open.to_encode > 0) {
    for (std::size_t i = 0; i < open.features.size(); ++i) {
      if (open.features[i] || open.encoders[i]) continue;
      auto* member = least_loaded(state.encoders);
      if (member == nullptr) return;
      encode_visual(self, id, i, *member);
    }
  } else if (!open.decoder) {
    if (auto* member = least_loaded(state.decoders, open.full))
      submit_to_decoder(self, id, *member);
  }
}

void place_all(Self self) {
  std::vector<std::uint64_t> ids;
  for (const auto& [id, open] : self->state.jobs) ids.push_back(id);
  for (const auto id : ids)
    if (self->state.jobs.contains(id)) place(self, id);
}

void start_ticking(Self self) {
  if (std::exchange(self->state.ticking, true)) return;
  self->delayed_send(self, kTick, tick_atom::value);
}

void open_job(Self self, const GatewayJobPtr& job) {
  auto& state = self->state;
  const auto id = job->request.id;
  OpenJob open;
  open.job = job;
  open.to_encode = job->visuals.size();
  open.features.resize(job->visuals.size());
  open.encoders.resize(job->visuals.size());
  if (!state.jobs.emplace(id, std::move(open)).second) return;
  if (state.draining) return fail_job(self, id, {Errc::kUnavailable, "gateway: draining"});
  if (state.policy == Members::kFixed) {
    if (state.decoders.empty()) return fail_job(self, id, {Errc::kUnavailable, "decoder: down"});
    if (!job->visuals.empty() && state.encoders.empty())
      return fail_job(self, id, {Errc::kUnavailable, "vision encoder: down"});
  }
  start_ticking(self);
  place(self, id);
}

void cancel_job(Self self, std::uint64_t id) {
  const auto it = self->state.jobs.find(id);
  if (it == self->state.jobs.end()) return;
  if (auto* member = find_member(self->state.decoders, it->second.decoder)) {
    self->send(member->handle, cancel_atom::value, it->second.submission);
  } else {
    TokenEvent event;
    event.finished = FinishReason::kCancelled;
    finish(self, id, std::move(event));
  }
}

void deliver(Self self, const TokenEvents& events) {
  auto& state = self->state;
  for (const auto& event : events) {
    const auto known = state.submissions.find(event.id);
    if (known == state.submissions.end()) continue;
    const auto id = known->second;
    auto& open = state.jobs.at(id);
    // A decoder that stops gives its sequences back.
    if (event.finished == FinishReason::kError && event.error &&
        event.error->code == Errc::kUnavailable) {
      open.tokens.insert(open.tokens.end(), event.tokens.begin(), event.tokens.end());
      try_elsewhere(self, id, *event.error);
      continue;
    }
    if (event.finished) {
      finish(self, id, event);
      continue;
    }
    open.tokens.insert(open.tokens.end(), event.tokens.begin(), event.tokens.end());
    auto told = event;
    told.id = id;
    open.job->on_event(std::move(told));
  }
}

void tick(Self self) {
  auto& state = self->state;
  const auto now = self->system().clock().now();
  std::vector<std::uint64_t> late;
  for (const auto& [id, open] : state.jobs) {
    const auto deadline = open.job->request.deadline;
    if (deadline < now && (now - deadline > kDeadlineGrace || !open.decoder)) late.push_back(id);
  }
  for (const auto id : late) {
    auto& open = state.jobs.at(id);
    if (auto* member = find_member(state.decoders, open.decoder)) {
      self->send(member->handle, cancel_atom::value, open.submission);
      transport::count_expired(transport::FrameType::kSubmit);
      fail_job(self, id, {Errc::kDeadlineExceeded, "gateway: no end of the request in time"});
    } else {
      const bool encoding =
          std::any_of(open.encoders.begin(), open.encoders.end(), [](auto& e) { return !!e; });
      if (encoding) {
        transport::count_expired(transport::FrameType::kEncode);
        fail_job(self, id, {Errc::kDeadlineExceeded, "vision encoder: no answer in time"});
      } else {
        fail_job(self, id,
                 {Errc::kUnavailable, open.to_encode > 0 ? "no vision encoder came in time"
                                                         : "no decoder came in time"});
      }
    }
  }
  state.ticking = false;
  if (!state.jobs.empty()) start_ticking(self);
}

template <class Handle>
void join(Self self, std::vector<GatewayMember<Handle>>& members, const std::string& name,
          Handle handle) {
  self->monitor(handle);
  members.push_back({name, std::move(handle)});
  place_all(self);
}

void leave(Self self, const Member& gone) {
  const auto mark = [&](auto& members) {
    for (auto& member : members)
      if (member.name == gone.name) member.draining = true;
  };
  if (gone.role == "decoder") mark(self->state.decoders);
  if (gone.role == "vision-encoder") mark(self->state.encoders);
}

void decoder_down(Self self, const caf::actor_addr& who) {
  std::vector<std::uint64_t> ids;
  for (const auto& [id, open] : self->state.jobs)
    if (open.decoder == who || self->state.policy == Members::kFixed) ids.push_back(id);
  if (!ids.empty() && self->state.policy == Members::kChanging)
    log(LogLevel::kWarn,
        "a decoder went down: " + std::to_string(ids.size()) + " requests go on elsewhere");
  for (const auto id : ids) try_elsewhere(self, id, {Errc::kUnavailable, "decoder: down"});
}

void encoder_down(Self self, const caf::actor_addr& who) {
  std::vector<std::uint64_t> ids;
  for (auto& [id, open] : self->state.jobs) {
    bool affected = false;
    for (auto& encoder : open.encoders)
      if (encoder == who) {
        encoder = nullptr;
        affected = true;
      }
    if (affected || (open.to_encode > 0 && self->state.policy == Members::kFixed))
      ids.push_back(id);
  }
  for (const auto id : ids) {
    if (self->state.policy == Members::kFixed)
      fail_job(self, id, {Errc::kUnavailable, "vision encoder: down"});
    else
      place(self, id);
  }
}

void went_down(Self self, const caf::actor_addr& who) {
  auto& state = self->state;
  const auto is_it = [&](const auto& member) { return member.handle.address() == who; };
  if (std::erase_if(state.decoders, is_it) > 0) decoder_down(self, who);
  if (std::erase_if(state.encoders, is_it) > 0) encoder_down(self, who);
}

}  // namespace

GatewayImpl::behavior_type gateway(GatewayImpl::stateful_pointer<GatewayState> self, Members policy,
                                   DecoderActor decoder, VisionEncoderActor vision) {
  self->state.policy = policy;
  self->set_down_handler([self](const caf::down_msg& down) { went_down(self, down.source); });
  if (decoder) join(self, self->state.decoders, "decoder-0", std::move(decoder));
  if (vision) join(self, self->state.encoders, "vision-encoder-0", std::move(vision));
  return {
      [self](submit_atom, const GatewayJobPtr& job) { open_job(self, job); },
      [self](cancel_atom, std::uint64_t id) { cancel_job(self, id); },
      [self](tokens_atom, const TokenEventsPtr& events) { deliver(self, *events); },
      [self](join_atom, const MemberPtr& member, const DecoderActor& handle) {
        join(self, self->state.decoders, member->name, handle);
      },
      [self](join_atom, const MemberPtr& member, const VisionEncoderActor& handle) {
        join(self, self->state.encoders, member->name, handle);
      },
      [self](leave_atom, const MemberPtr& member) { leave(self, *member); },
      [self](drain_atom) -> caf::result<void> {
        self->state.draining = true;
        auto promise = self->make_response_promise<void>();
        self->state.drains.push_back(promise);
        notify_drains(self);
        return promise;
      },
      [self](tick_atom) { tick(self); },
  };
}

}  // namespace moesaic
