#include "actors/decoder/decoder.hpp"

#include <utility>

#include "actors/contracts/errors.hpp"

namespace moesaic {

void DecoderState::drop_sink(const caf::actor_addr& gone) {
  watched.erase(gone);
  for (auto it = sinks.begin(); it != sinks.end();) {
    if (it->second.address() == gone) {
      engine->cancel(it->first);
      it = sinks.erase(it);
    } else {
      ++it;
    }
  }
}

DecoderImpl::behavior_type decoder(DecoderImpl::stateful_pointer<DecoderState> self,
                                   EngineFactory make_engine) {
  self->set_down_handler([self](const caf::down_msg& down) { self->state.drop_sink(down.source); });
  self->state.engine = make_engine([me = DecoderImpl(self)](TokenEvents events) {
    caf::anon_send(me, tokens_atom::value, std::make_shared<const TokenEvents>(std::move(events)));
  });
  return {
      [self](submit_atom, const GenerateRequestPtr& request,
             const TokenSink& sink) -> caf::result<void> {
        // The sink must be known before the engine can produce its first event.
        if (!self->state.sinks.emplace(request->id, sink).second)
          return to_caf({Errc::kInvalidArgument,
                         "request " + std::to_string(request->id) + " is running already"});
        if (auto queued = self->state.engine->submit(request); !queued) {
          self->state.sinks.erase(request->id);
          return to_caf(queued.error());
        }
        // Once: each call to `monitor` would be kept, by the sink and for ever.
        if (self->state.watched.insert(sink.address()).second) self->monitor(sink);
        return caf::unit;
      },
      [self](cancel_atom, std::uint64_t id) { self->state.engine->cancel(id); },
      [self](status_atom) -> EngineStatusPtr {
        return std::make_shared<const EngineStatus>(self->state.engine->status());
      },
      [self](drain_atom) {
        auto promise = self->make_response_promise<void>();
        self->state.drains.push_back(promise);
        // Told on the engine thread, where no promise may be touched.
        self->state.engine->drain(
            [me = DecoderImpl(self)] { caf::anon_send(me, drained_atom::value); });
        return promise;
      },
      [self](drained_atom) {
        for (auto& promise : std::exchange(self->state.drains, {})) promise.deliver(caf::unit);
      },
      [self](tokens_atom, const TokenEventsPtr& events) {
        send_tokens(self, self->state.sinks, *events);
      },
  };
}

}  // namespace moesaic
