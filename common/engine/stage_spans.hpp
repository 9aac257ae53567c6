#pragma once

#include <string_view>

#include "common/engine/sequence.hpp"
#include "common/trace/tracer.hpp"

namespace moesaic {

/// The stages of a sequence that has ended, as spans of its request: queue, prefill, decode; those
/// that it reached.
/// @param failure why it ended without a whole answer; empty: it has one
void trace_stages(const Tracer& tracer, const Sequence& sequence, std::string_view failure);

/// Whether the layers of the sequence's next step are traced: those of its prefill and of every
/// 16th token, as each layer is a span here and one at each shard it asks.
inline bool traces_layers(const Sequence& sequence) {
  return sequence.request->trace.sampled && sequence.generated() % 16 == 0;
}

}  // namespace moesaic
