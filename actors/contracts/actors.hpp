#pragma once

#include <caf/all.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/base/trace_context.hpp"
#include "common/engine/request.hpp"
#include "common/model/config.hpp"
#include "common/transport/endpoint.hpp"

/// Typed interfaces of all actors and the messages between them, inside one process. Who sends does
/// not know where the other lives: a remote service appears as a proxy actor with the same
/// interface. Nothing per layer passes a mailbox.
namespace moesaic {

using submit_atom = caf::atom_constant<caf::atom("submit")>;
using cancel_atom = caf::atom_constant<caf::atom("cancel")>;
using encode_atom = caf::atom_constant<caf::atom("encode")>;
using run_atom = caf::atom_constant<caf::atom("run")>;
using status_atom = caf::atom_constant<caf::atom("status")>;
using drain_atom = caf::atom_constant<caf::atom("drain")>;
using join_atom = caf::atom_constant<caf::atom("join")>;
using leave_atom = caf::atom_constant<caf::atom("leave")>;
using tokens_atom = caf::atom_constant<caf::atom("tokens")>;

// ------------------------------------------------------------------ messages

/// One image (one frame, fps 0) or one video (frames with a rate) as encoded files: PNG, JPEG or
/// WebP bytes.
struct VisualItem {
  bool video = false;
  double fps = 0;  ///< frame i of a video is at i / fps seconds
  std::vector<std::shared_ptr<const std::string>> frames;
  /// When it came into this process: its wait for the encoder begins.
  std::chrono::steady_clock::time_point since = std::chrono::steady_clock::now();
  TraceContext trace{};  ///< of the request it is encoded for
};
using VisualItemPtr = std::shared_ptr<const VisualItem>;

/// Rows for the experts of one layer: what a test or a tool asks a shard directly.
struct ExpertBatch {
  std::uint32_t layer = 0;
  Modality modality = Modality::kText;
  std::size_t rows = 0;
  std::vector<float> x;               ///< [rows, hidden]
  std::vector<std::uint64_t> chosen;  ///< [rows] bit e: expert e was chosen for the row
  std::vector<std::uint32_t> ids;     ///< [rows * top_k]
  std::vector<float> weights;         ///< [rows * top_k]
};
using ExpertBatchPtr = std::shared_ptr<const ExpertBatch>;

/// Maximal nodes of the expert tree (common/kernels/expert_tree.hpp), row by row.
struct ExpertOutput {
  std::vector<std::uint32_t> row;   ///< per node
  std::vector<std::uint32_t> node;  ///< per node
  std::vector<float> values;        ///< [nodes, hidden]
};
using ExpertOutputPtr = std::shared_ptr<const ExpertOutput>;

struct ExpertShardStatus {
  std::string name;
  std::uint64_t batches = 0;
  std::uint64_t rows = 0;
  std::uint64_t failed = 0;
  std::uint64_t weight_bytes = 0;
};

struct VisionStatus {
  std::uint64_t encoded = 0;
  std::uint64_t cache_hits = 0;
  std::uint64_t cache_misses = 0;
};

/// What the router's control actor knows of a registered part.
struct Member {
  std::string role;  ///< "decoder", "expert-shard", "vision-encoder", "gateway"
  std::string name;
};

struct ClusterStatus {
  bool ready = false;
  std::vector<Member> members;
  std::string missing;  ///< why not ready
};

using EngineStatusPtr = std::shared_ptr<const EngineStatus>;
using ExpertShardStatusPtr = std::shared_ptr<const ExpertShardStatus>;
using VisionStatusPtr = std::shared_ptr<const VisionStatus>;
using ClusterStatusPtr = std::shared_ptr<const ClusterStatus>;
using TokenEventsPtr = std::shared_ptr<const TokenEvents>;
using MemberPtr = std::shared_ptr<const Member>;

// ------------------------------------------------------------------ interfaces

/// Receives what the decoder produced in one step; the gateway is one.
using TokenSink = caf::typed_actor<caf::reacts_to<tokens_atom, TokenEventsPtr>>;

/// VISION ENCODER: decodes, resizes, runs ViT and resampler; features cached by content hash. Sole
/// owner of the vision weights.
using VisionEncoderActor = caf::typed_actor<
    // Features of one item. Fails: kCorrupt (not an image, truncated), kTooLarge, kUnsupported
    // (format), kOverloaded.
    caf::replies_to<encode_atom, VisualItemPtr>::with<VisualFeaturesPtr>,
    caf::replies_to<status_atom>::with<VisionStatusPtr>>;

/// EXPERT SHARD: runs the experts this process holds. One per process; sole owner of their weights.
using ExpertShardActor = caf::typed_actor<
    // One layer's rows through the experts held here (control and tests; never per layer in
    // service). Fails: kNotFound, kShapeMismatch.
    caf::replies_to<run_atom, ExpertBatchPtr>::with<ExpertOutputPtr>,
    // Counts since the process started.
    caf::replies_to<status_atom>::with<ExpertShardStatusPtr>>;

/// DECODER: owns the engine (its own thread), KV cache and text weights.
using DecoderActor = caf::typed_actor<
    // Admits a sequence; its tokens go to the sink step by step, ending with one event that has
    // `finished`. Fails: kOverloaded (queue full), kContextLength, kInvalidArgument, kUnavailable
    // (draining).
    caf::replies_to<submit_atom, GenerateRequestPtr, TokenSink>::with<void>,
    // Ends the sequence; its last event says kCancelled. Unknown ids are ignored (it may just have
    // ended).
    caf::reacts_to<cancel_atom, std::uint64_t>, caf::replies_to<status_atom>::with<EngineStatusPtr>,
    // Refuses new sequences; answers when the last one has ended.
    caf::replies_to<drain_atom>::with<void>>;

/// ROUTER CONTROL: who is here, and is everything there that serving needs.
using RouterActor = caf::typed_actor<
    // Registers a part; it stays until the actor behind it goes down.
    caf::reacts_to<join_atom, MemberPtr, caf::actor_addr>,
    caf::replies_to<status_atom>::with<ClusterStatusPtr>>;

/// What arrived at a transport::Link, on its way to the actor that owns it.
using LinkEventPtr = std::shared_ptr<const transport::Event>;

/// A prepared request on its way from an HTTP session into the actor world.
struct GatewayJob {
  GenerateRequest
      request;  ///< `visuals` still empty, placeholders already expanded from the image headers
  std::vector<VisualItemPtr> visuals;  ///< to be encoded first, in order of appearance
  /// Called on an actor thread for each event of this request, the last with `finished`; must only
  /// post to the session's executor.
  std::function<void(TokenEvent)> on_event;
};
using GatewayJobPtr = std::shared_ptr<const GatewayJob>;

/// GATEWAY: takes jobs from HTTP sessions, has their visuals encoded, submits them, fans tokens out
/// again. Never blocks.
using GatewayActor = caf::typed_actor<
    caf::reacts_to<submit_atom, GatewayJobPtr>,
    // The client has gone, or wants no more.
    caf::reacts_to<cancel_atom, std::uint64_t>, caf::reacts_to<tokens_atom, TokenEventsPtr>,
    // A decoder, a vision encoder that takes work from now on, until its actor goes down.
    caf::reacts_to<join_atom, MemberPtr, DecoderActor>,
    caf::reacts_to<join_atom, MemberPtr, VisionEncoderActor>,
    // The member drains: no new work for it; what it has goes on there.
    caf::reacts_to<leave_atom, MemberPtr>,
    // Answers when no request is open any more; new ones are refused with kUnavailable.
    caf::replies_to<drain_atom>::with<void>>;

}  // namespace moesaic

CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::VisualItemPtr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::ExpertBatchPtr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::ExpertOutputPtr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::VisualFeaturesPtr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::GenerateRequestPtr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::EngineStatusPtr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::ExpertShardStatusPtr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::VisionStatusPtr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::ClusterStatusPtr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::TokenEventsPtr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::MemberPtr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::GatewayJobPtr)
CAF_ALLOW_UNSAFE_MESSAGE_TYPE(moesaic::LinkEventPtr)
