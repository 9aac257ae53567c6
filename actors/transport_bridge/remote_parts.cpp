#include "actors/transport_bridge/remote_parts.hpp"

#include "actors/contracts/errors.hpp"
#include "actors/transport_bridge/request_frames.hpp"
#include "common/base/log.hpp"
#include "common/transport/failure.hpp"

namespace moesaic {
namespace {

using transport::FrameType;

/// Tells a proxy that its question was not sent, as if the service had refused it.
template <class Self>
std::function<void(const Error&)> refused_by_wire(Self self, std::uint64_t question) {
  return [me = caf::actor_cast<caf::actor>(self), question](const Error& error) {
    auto event = std::make_shared<transport::Event>();
    event->kind = transport::Event::Kind::kFrame;
    event->frame = transport::make_failure(error, question);
    caf::anon_send(me, event_atom::value, LinkEventPtr(std::move(event)));
  };
}

/// Takes the promise that waits for this answer; nothing if nobody waits any more.
caf::response_promise take(std::map<std::uint64_t, caf::response_promise>& asked,
                           std::uint64_t sequence) {
  const auto it = asked.find(sequence);
  if (it == asked.end()) return {};
  auto promise = std::move(it->second);
  asked.erase(it);
  return promise;
}

void answered(RemoteDecoderImpl::stateful_pointer<RemoteDecoderState> self,
              const transport::Frame& frame) {
  auto& state = self->state;
  if (frame.type == FrameType::kTokens) {
    const auto events = read_tokens(frame);
    if (!events) return log(LogLevel::kWarn, "remote decoder: " + events.error().what);
    return send_tokens(self, state.sinks, *events);
  }
  if (frame.type != FrameType::kAccepted && frame.type != FrameType::kFailure &&
      frame.type != FrameType::kStale)
    return;
  auto promise = take(state.asked, frame.sequence);
  const auto id = state.asked_id.extract(frame.sequence);
  if (!promise.pending()) return;
  if (frame.type == FrameType::kAccepted) return promise.deliver(caf::unit);
  if (!id.empty()) state.sinks.erase(id.mapped());
  promise.deliver(to_caf(frame.type == FrameType::kStale
                             ? Error{Errc::kUnavailable, "decoder: this gateway is out of date"}
                             : transport::read_failure(frame)));
}

}  // namespace

RemoteDecoderImpl::behavior_type remote_decoder(
    RemoteDecoderImpl::stateful_pointer<RemoteDecoderState> self, SendFrame send) {
  self->state.send = std::move(send);
  return {
      [self](submit_atom, const GenerateRequestPtr& request,
             const TokenSink& sink) -> caf::result<void> {
        auto& state = self->state;
        auto frame = make_submit(*request, std::chrono::steady_clock::now());
        frame.sequence = state.next_question++;
        const auto question = frame.sequence;
        if (auto sent = state.send(std::move(frame), refused_by_wire(self, question)); !sent)
          return to_caf(sent.error());
        state.sinks[request->id] = sink;
        state.asked_id[question] = request->id;
        return state.asked[question] = self->make_response_promise<void>();
      },
      [self](cancel_atom, std::uint64_t id) {
        // Unsent because the decoder has gone: then there is nothing to cancel.
        if (self->state.sinks.contains(id))
          static_cast<void>(self->state.send(make_cancel(id), {}));
      },
      [](status_atom) -> caf::result<EngineStatusPtr> {
        return to_caf({Errc::kUnsupported, "a remote decoder's status is in the cluster's view"});
      },
      [](drain_atom) -> caf::result<void> {
        return to_caf({Errc::kUnsupported, "a remote decoder is drained by the router"});
      },
      [self](event_atom, const LinkEventPtr& event) { answered(self, event->frame); },
  };
}

RemoteVisionImpl::behavior_type remote_vision(
    RemoteVisionImpl::stateful_pointer<RemoteVisionState> self, SendFrame send) {
  self->state.send = std::move(send);
  return {
      [self](encode_atom, const VisualItemPtr& item) -> caf::result<VisualFeaturesPtr> {
        auto frame = make_encode(*item);
        frame.sequence = self->state.next_question++;
        const auto question = frame.sequence;
        if (auto sent = self->state.send(std::move(frame), refused_by_wire(self, question)); !sent)
          return to_caf(sent.error());
        auto promise = self->make_response_promise<VisualFeaturesPtr>();
        self->state.asked[question] = promise;
        return promise;
      },
      [](status_atom) -> caf::result<VisionStatusPtr> {
        return to_caf({Errc::kUnsupported, "a remote encoder's status is in the cluster's view"});
      },
      [self](event_atom, const LinkEventPtr& event) {
        const auto& frame = event->frame;
        auto promise = take(self->state.asked, frame.sequence);
        if (!promise.pending()) return;
        if (frame.type == FrameType::kFeatures) {
          auto features = read_features(frame);
          if (features)
            promise.deliver(
                VisualFeaturesPtr(std::make_shared<const VisualFeatures>(std::move(*features))));
          else
            promise.deliver(to_caf(features.error()));
        } else {
          promise.deliver(to_caf(frame.type == FrameType::kFailure
                                     ? transport::read_failure(frame)
                                     : Error{Errc::kUnavailable, "vision encoder: no answer"}));
        }
      },
  };
}

}  // namespace moesaic
