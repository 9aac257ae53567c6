#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "common/base/trace_context.hpp"
#include "common/tensor/view.hpp"

namespace moesaic::transport {

/// What a frame asks, answers or tells. Numbers are part of the wire format: never reused.
enum class FrameType : std::uint16_t {
  // Any peer to any peer.
  kHello = 1,    ///< who I am; the first frame of the connecting side
  kWelcome = 2,  ///< who I am, how many questions may be open; the answer to kHello
  kGoodbye = 3,  ///< I leave on purpose
  kFailure = 4,  ///< the answer is an error: Errc in `code`, text in tensor 0
  kStale = 5,  ///< the question's epoch, incarnation or attempt is over; `epoch` is the current one
  kProbe = 6,  ///< are you able to serve? answered by kProbed or kFailure
  kProbed = 7,
  // The data plane, per layer.
  kExpertRows = 16,   ///< rows, ids, weights, masks of one layer for a shard
  kExpertNodes = 17,  ///< the answer: row and node numbers and values
  kMoeRows = 18,      ///< all rows of one layer for the router, which gates and dispatches
  kMoeSums = 19,      ///< the answer: the routed sum of each row
  // Gateway and decoder.
  kSubmit = 32,    ///< a sequence to generate
  kAccepted = 33,  ///< it is queued
  kTokens = 34,    ///< what a step produced
  kCancel = 35,    ///< nobody wants it any more
  // Gateway and vision encoder.
  kEncode = 48,    ///< an image or a video as files
  kFeatures = 49,  ///< the answer: its embeddings
  // Control: every service and the router.
  kRegister = 64,   ///< a member and what it has
  kLease = 65,      ///< the answer: how long it is a member without a heartbeat
  kHeartbeat = 66,  ///< renews the lease; carries load
  kView = 67,       ///< members and placement, from the router to everybody
  kPrepare = 68,    ///< to a shard: load the experts of the next placement
  kPrepared = 69,   ///< from a shard: these layers are loaded
  kAdopted = 70,    ///< from a dispatcher: this view is in use
  kRelease = 71,    ///< to a shard: experts outside the current placement may go
  kDrain = 72,      ///< to a member: end what you have, take nothing new
  kStatus = 73,     ///< from a tool: how is the cluster? answered by kView
  kPlace = 74,      ///< from a tool: a new placement file; answered by kView or kFailure
};

using RequestId = std::array<std::uint8_t, 16>;

/// One message between services. In one process it travels by move; between processes in the wire
/// format of wire.hpp.
struct Frame {
  FrameType type = FrameType::kExpertRows;
  std::uint8_t code = 0;          ///< Errc of a kFailure
  std::uint32_t epoch = 0;        ///< placement the sender works with; 0: does not matter
  std::uint64_t sender = 0;       ///< Identity::id, set by the endpoint
  std::uint32_t incarnation = 0;  ///< of the sender, set by the endpoint
  std::uint16_t attempt = 0;      ///< how often the same thing was asked before
  RequestId request{};            ///< of the client's request; zeros: none, or many
  std::uint64_t sequence = 0;     ///< the answer carries its question's number
  std::uint32_t budget_us = 0;    ///< time left when sent; 0: no deadline
  std::uint16_t layer = 0;
  std::uint8_t modality = 0;
  TraceContext trace;           ///< invalid: not traced
  std::vector<Tensor> tensors;  ///< control messages: one u8 tensor, see bytes.hpp
};

}  // namespace moesaic::transport
