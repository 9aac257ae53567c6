#include "actors/transport_bridge/service_ends.hpp"

#include "actors/contracts/errors.hpp"
#include "actors/transport_bridge/request_frames.hpp"
#include "common/base/log.hpp"
#include "common/transport/failure.hpp"

namespace moesaic {
namespace {

using transport::Event;
using transport::Frame;
using transport::FrameType;
using transport::PeerId;

/// A peer that does not take its answers is let go: what it was to hear it asks for again, here or
/// elsewhere, while a lost answer would leave it waiting.
template <class Self>
void send(Self self, PeerId peer, Frame frame) {
  auto* link = self->state.link.get();
  const auto let_go = [me = caf::actor_cast<caf::actor>(self), link, peer](const Error& error) {
    log(LogLevel::kWarn, "a gateway does not take its answers: " + error.what);
    static_cast<void>(link->post([peer](transport::Endpoint& endpoint) { endpoint.close(peer); }));
    auto event = std::make_shared<Event>();
    event->kind = Event::Kind::kDown;
    event->peer = peer;
    caf::anon_send(me, arrived_atom::value, LinkEventPtr(std::move(event)));
  };
  if (const auto sent = link->send(peer, std::move(frame), let_go); !sent) let_go(sent.error());
}

template <class Self>
void answer_probe(Self self, PeerId peer, std::uint64_t sequence) {
  if (const auto reason = self->state.parts.not_ready())
    return send(self, peer, transport::make_failure({Errc::kUnavailable, *reason}, sequence));
  Frame frame;
  frame.type = FrameType::kProbed;
  frame.sequence = sequence;
  send(self, peer, std::move(frame));
}

template <class Self>
transport::Link::OnEvent events_to(Self self) {
  using Handle = caf::actor;
  return [me = caf::actor_cast<Handle>(self)](transport::Endpoint&, Event event) {
    caf::anon_send(me, arrived_atom::value,
                   LinkEventPtr(std::make_shared<const Event>(std::move(event))));
  };
}

using DecoderSelf = DecoderEndActor::stateful_pointer<DecoderEndState>;

void submit(DecoderSelf self, PeerId peer, const Frame& frame) {
  auto& state = self->state;
  auto request = read_submit(frame, std::chrono::steady_clock::now());
  if (!request) return send(self, peer, transport::make_failure(request.error(), frame.sequence));
  const auto id = state.next_id++;
  state.open[id] = {peer, request->id};
  request->id = id;
  self->request(state.decoder, caf::infinite, submit_atom::value,
                GenerateRequestPtr(std::make_shared<const GenerateRequest>(std::move(*request))),
                TokenSink(self))
      .then(
          [self, peer, sequence = frame.sequence] {
            Frame accepted;
            accepted.type = FrameType::kAccepted;
            accepted.sequence = sequence;
            send(self, peer, std::move(accepted));
          },
          [self, peer, id, sequence = frame.sequence](const caf::error& error) {
            self->state.open.erase(id);
            send(self, peer, transport::make_failure(from_caf(error), sequence));
          });
}

/// Cancels the requests of a gateway: one of them, or all.
void cancel(DecoderSelf self, PeerId peer, std::optional<std::uint64_t> only) {
  for (const auto& [id, whose] : self->state.open)
    if (whose.first == peer && (!only || whose.second == *only))
      self->send(self->state.decoder, cancel_atom::value, id);
}

void pass_on(DecoderSelf self, const TokenEvents& events) {
  std::map<PeerId, TokenEvents> by_peer;
  auto& open = self->state.open;
  for (const auto& event : events) {
    const auto it = open.find(event.id);
    if (it == open.end()) continue;
    auto told = event;
    told.id = it->second.second;
    by_peer[it->second.first].push_back(std::move(told));
    if (event.finished) open.erase(it);
  }
  for (const auto& [peer, own] : by_peer) send(self, peer, make_tokens(own));
}

void take(DecoderSelf self, const Event& event) {
  if (event.kind == Event::Kind::kDown) return cancel(self, event.peer, {});
  if (event.kind != Event::Kind::kFrame) return;
  const auto& frame = event.frame;
  if (frame.type == FrameType::kSubmit) return submit(self, event.peer, frame);
  if (frame.type == FrameType::kProbe) return answer_probe(self, event.peer, frame.sequence);
  if (frame.type == FrameType::kCancel) {
    if (const auto id = read_cancel(frame)) cancel(self, event.peer, *id);
    return;
  }
  send(self, event.peer,
       transport::make_failure({Errc::kUnsupported, "a decoder does not answer frames of type " +
                                                        std::to_string(int(frame.type))},
                               frame.sequence));
}

using VisionSelf = VisionEndActor::stateful_pointer<VisionEndState>;

void take(VisionSelf self, const Event& event) {
  if (event.kind != Event::Kind::kFrame) return;
  const auto peer = event.peer;
  const auto sequence = event.frame.sequence;
  if (event.frame.type == FrameType::kProbe) return answer_probe(self, peer, sequence);
  if (event.frame.type != FrameType::kEncode)
    return send(self, peer,
                transport::make_failure(
                    {Errc::kUnsupported, "a vision encoder does not answer frames of type " +
                                             std::to_string(int(event.frame.type))},
                    sequence));
  auto item = read_encode(event.frame);
  if (!item) return send(self, peer, transport::make_failure(item.error(), sequence));
  self->request(self->state.vision, caf::infinite, encode_atom::value,
                VisualItemPtr(std::make_shared<const VisualItem>(std::move(*item))))
      .then(
          [self, peer, sequence](const VisualFeaturesPtr& features) {
            const auto begun = std::chrono::steady_clock::now();
            auto frame = make_features(*features);
            frame.sequence = sequence;
            send(self, peer, std::move(frame));
            self->state.transfer.observe(
                std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());
          },
          [self, peer, sequence](const caf::error& error) {
            send(self, peer, transport::make_failure(from_caf(error), sequence));
          });
}

}  // namespace

DecoderEndActor::behavior_type decoder_end(DecoderEndActor::stateful_pointer<DecoderEndState> self,
                                           ServiceEndParts parts, DecoderActor decoder) {
  self->state.parts = std::move(parts);
  self->state.decoder = std::move(decoder);
  self->state.link = self->state.parts.open_link(events_to(self));
  return {
      [self](tokens_atom, const TokenEventsPtr& events) { pass_on(self, *events); },
      [self](arrived_atom, const LinkEventPtr& event) { take(self, *event); },
  };
}

VisionEndActor::behavior_type vision_end(VisionEndActor::stateful_pointer<VisionEndState> self,
                                         ServiceEndParts parts, VisionEncoderActor vision) {
  self->state.parts = std::move(parts);
  self->state.vision = std::move(vision);
  self->state.link = self->state.parts.open_link(events_to(self));
  return {[self](arrived_atom, const LinkEventPtr& event) { take(self, *event); }};
}

}  // namespace moesaic
