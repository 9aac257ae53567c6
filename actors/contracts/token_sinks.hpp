#pragma once

#include <map>
#include <memory>
#include <utility>

#include "actors/contracts/actors.hpp"

namespace moesaic {

/// Who takes the tokens of a request, by its id, while it runs.
using TokenSinks = std::map<std::uint64_t, TokenSink>;

/// Sends the events of a step on, one message for each sink; a request that has finished leaves
/// `sinks`.
/// @param self the actor that sends and owns `sinks`
template <class Self>
void send_tokens(Self self, TokenSinks& sinks, const TokenEvents& events) {
  std::map<TokenSink, TokenEvents> by_sink;
  for (const auto& event : events) {
    const auto it = sinks.find(event.id);
    if (it == sinks.end()) continue;
    by_sink[it->second].push_back(event);
    if (event.finished) sinks.erase(it);
  }
  for (auto& [sink, own] : by_sink)
    self->send(sink, tokens_atom::value, std::make_shared<const TokenEvents>(std::move(own)));
}

}  // namespace moesaic
