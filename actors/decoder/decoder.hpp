#pragma once

#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "actors/contracts/actors.hpp"
#include "actors/contracts/token_sinks.hpp"
#include "common/engine/engine.hpp"

namespace moesaic {

/// Makes the engine once the actor that takes its events exists.
using EngineFactory = std::function<std::unique_ptr<Engine>(Engine::OnEvents)>;

using drained_atom = caf::atom_constant<caf::atom("drained")>;

/// The decoder's public interface plus what its engine thread tells it.
using DecoderImpl =
    DecoderActor::extend<caf::reacts_to<tokens_atom, TokenEventsPtr>, caf::reacts_to<drained_atom>>;

/// Who waits for what. The engine does the work on a thread of its own; this actor only passes
/// messages on.
struct DecoderState {
  static constexpr const char* name = "decoder";
  std::unique_ptr<Engine> engine;
  TokenSinks sinks;
  std::set<caf::actor_addr> watched;          ///< sinks whose end this actor is told
  std::vector<caf::response_promise> drains;  ///< who waits for the last request to end

  /// Ends every request whose tokens went to a sink that has died.
  void drop_sink(const caf::actor_addr& gone);
};

DecoderImpl::behavior_type decoder(DecoderImpl::stateful_pointer<DecoderState> self,
                                   EngineFactory make_engine);

}  // namespace moesaic
