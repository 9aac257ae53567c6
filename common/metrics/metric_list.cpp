#include <array>

#include "common/metrics/metrics.hpp"

namespace moesaic::metrics {
namespace {

using enum Spec::Type;

// The edges that dashboards of other servers assume, so that panels can be compared.
constexpr std::array kTtft = {0.001, 0.005, 0.01, 0.02,  0.04,  0.06,  0.08, 0.1,
                              0.25,  0.5,   0.75, 1.0,   2.5,   5.0,   7.5,  10.0,
                              20.0,  40.0,  80.0, 160.0, 640.0, 2560.0};
constexpr std::array kPerToken = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,  0.3,  0.4, 0.5,
                                  0.75, 1.0,   2.5,  5.0,   7.5, 10.0, 20.0, 40.0, 80.0};
constexpr std::array kRequest = {0.01, 0.05, 0.1,   0.3,   0.5,   0.8,  1.0,  1.5,
                                 2.0,  2.5,  5.0,   10.0,  15.0,  20.0, 30.0, 40.0,
                                 50.0, 60.0, 120.0, 240.0, 480.0, 960.0};
// One message, one layer: tens of microseconds to seconds.
constexpr std::array kHop = {0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025,
                             0.005,   0.01,     0.025,   0.05,   0.1,     0.25,   1.0,   5.0};
// One step, one image: a millisecond to a minute.
constexpr std::array kStep = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                              0.25,   0.5,   1.0,    2.5,   5.0,  10.0,  30.0, 60.0};
constexpr std::array kImageTokens = {16.0,  32.0,   64.0,   128.0,  256.0,
                                     512.0, 1024.0, 2048.0, 4096.0, 8192.0};

using Names = std::vector<std::string_view>;

Spec counter_of(std::string_view name, std::string_view help, Names labels = {}) {
  return {name, kCounter, help, std::move(labels), {}};
}
Spec gauge_of(std::string_view name, std::string_view help, Names labels = {}) {
  return {name, kGauge, help, std::move(labels), {}};
}
Spec histogram_of(std::string_view name, std::string_view help, std::span<const double> buckets,
                  Names labels = {}) {
  return {name, kHistogram, help, std::move(labels), buckets};
}

std::vector<Spec> make_list() {
  return {
      // http
      counter_of("moesaic_http_requests_total",
                 "HTTP requests answered, by pattern of the route (other: no such route).",
                 {"route", "method", "status"}),
      // request
      histogram_of("moesaic_request_ttft_seconds", "Arrival of a request to its first token.",
                   kTtft),
      histogram_of("moesaic_request_inter_token_seconds", "Between two tokens of one answer.",
                   kPerToken),
      histogram_of("moesaic_request_e2e_seconds", "Arrival of a request to its last token.",
                   kRequest),
      histogram_of("moesaic_request_queue_seconds",
                   "Time a request waited in a queue before the engine began with it.", kRequest),
      histogram_of("moesaic_request_prefill_seconds", "First step of a request to its first token.",
                   kRequest),
      histogram_of("moesaic_request_decode_seconds", "First token of an answer to its last.",
                   kRequest),
      counter_of("moesaic_request_prompt_tokens_total", "Tokens of admitted prompts."),
      counter_of("moesaic_request_generated_tokens_total", "Tokens delivered by the engine."),
      counter_of("moesaic_request_finished_total",
                 "Answers that ended: stop, length, or error after their first token.", {"reason"}),
      counter_of("moesaic_request_rejected_total",
                 "Requests answered with an error before their first token, by its code.",
                 {"reason"}),
      counter_of("moesaic_request_cancelled_total",
                 "Requests whose client left: prepare (before the engine had it), prefill (before "
                 "its first token) or decode.",
                 {"stage"}),
      histogram_of("moesaic_request_cancel_release_seconds",
                   "A client's leaving to the engine's word that nothing is held any more.", kHop),
      gauge_of("moesaic_request_open", "Requests inside the gateway."),
      gauge_of("moesaic_request_open_limit", "Requests the gateway takes in at the same time."),
      // engine, kv, prefix
      gauge_of("moesaic_engine_requests_running", "Sequences the engine works on."),
      gauge_of("moesaic_engine_requests_waiting", "Sequences that wait for a place in the batch."),
      gauge_of("moesaic_engine_requests_waiting_limit",
               "Sequences that may wait before new ones are refused."),
      histogram_of("moesaic_engine_step_seconds", "One step of the batch through the network.",
                   kStep),
      histogram_of("moesaic_engine_step_skew_seconds",
                   "First to last answer of the shards, per layer of a step.", kHop),
      gauge_of("moesaic_engine_load_progress_ratio",
               "Share of the weights that is loaded, 0 to 1."),
      counter_of("moesaic_engine_energy_joules_total",
                 "Energy of the machine's processors since start; absent where it cannot be read.",
                 {"node"}),
      gauge_of("moesaic_kv_usage_ratio", "Share of the KV blocks in use, 0 to 1."),
      gauge_of("moesaic_kv_blocks", "KV blocks: free, active or cached.", {"state"}),
      counter_of("moesaic_prefix_queries_total",
                 "Prompt tokens looked up in the prefix cache (0: this version has none)."),
      counter_of("moesaic_prefix_hits_total", "Prompt tokens found in the prefix cache."),
      // moe
      counter_of("moesaic_moe_shard_tokens_total",
                 "Rows a shard computed, by layer and expert pool.",
                 {"shard", "layer", "modality"}),
      counter_of(
          "moesaic_moe_expert_tokens_total",
          "Rows an expert of a shard computed; only with shard.expert_metrics (many series). "
          "Always as a matrix at the shard's admin port: GET /experts.",
          {"layer", "expert", "modality"}),
      gauge_of(
          "moesaic_moe_shard_imbalance_ratio",
          "Rows of the busiest shard over the mean of all, in the last window of steps; 1 is even.",
          {"layer"}),
      counter_of("moesaic_moe_step_critical_shard_total",
                 "Layers for which this shard was the last to answer.", {"shard"}),
      histogram_of("moesaic_moe_dispatch_seconds",
                   "Stages of one layer's work at a shard: queue, send, compute, receive, combine.",
                   kHop, {"shard", "stage"}),
      counter_of("moesaic_moe_dropped_tokens_total",
                 "Rows whose experts could not be computed before the deadline.", {"reason"}),
      counter_of("moesaic_moe_degraded_requests_total", "Requests that a fault slowed or ended.",
                 {"reason"}),
      gauge_of("moesaic_moe_weights_resident_bytes", "Weights of experts that this process holds."),
      histogram_of("moesaic_moe_expert_load_seconds", "Loading the experts of one layer.", kStep),
      counter_of("moesaic_moe_page_faults_total",
                 "Major page faults of the process: weights read again."),
      // vision
      histogram_of("moesaic_vision_queue_seconds", "An image's wait for the encoder.", kStep),
      histogram_of("moesaic_vision_fetch_seconds",
                   "Getting an image's or frame's bytes from where the request names them.", kStep),
      histogram_of("moesaic_vision_decode_seconds", "JPEG, PNG or WebP to pixels.", kStep),
      histogram_of("moesaic_vision_resize_seconds", "Pixels to patches.", kStep),
      histogram_of("moesaic_vision_encode_seconds", "ViT and resampler.", kStep),
      histogram_of("moesaic_vision_transfer_seconds",
                   "Features of an item into a frame and onto the wire to the gateway.", kStep),
      histogram_of("moesaic_vision_tokens_per_image", "Tokens an image becomes.", kImageTokens),
      counter_of("moesaic_vision_cache_hits_total", "Images whose features were known."),
      counter_of("moesaic_vision_cache_misses_total", "Images that had to be encoded."),
      // wire
      counter_of("moesaic_wire_bytes_total",
                 "Bytes of frames sent: activations, image_embeddings or control.",
                 {"from", "to", "kind", "crypto"}),
      counter_of("moesaic_wire_messages_total", "Frames sent.", {"from", "to", "kind", "crypto"}),
      histogram_of("moesaic_wire_rtt_seconds", "Heartbeat to a peer and back.", kHop, {"peer"}),
      counter_of("moesaic_wire_send_blocked_seconds_total",
                 "Time frames to a peer waited for room or credit.", {"peer"}),
      counter_of("moesaic_wire_hwm_drops_total",
                 "Frames to a peer dropped because its queue was full.", {"peer"}),
      counter_of("moesaic_wire_malformed_total", "Frames of a peer that were refused as malformed.",
                 {"peer"}),
      counter_of("moesaic_wire_handshake_failures_total",
                 "Connections refused: unknown key, wrong role or no handshake."),
      counter_of("moesaic_wire_deadline_exceeded_total",
                 "Frames or questions dropped because their time had run out.", {"type"}),
      // placement
      gauge_of("moesaic_placement_info", "1 for each range of experts and shard that holds it.",
               {"expert_range", "shard", "node", "tier"}),
      gauge_of("moesaic_placement_generation", "Epoch of the placement that this process uses."),
      gauge_of("moesaic_placement_expert_replicas", "Shards alive that hold this range of experts.",
               {"expert_range"}),
      // control
      gauge_of("moesaic_control_instance_alive", "1 while the lease of a member is valid, else 0.",
               {"instance"}),
      gauge_of("moesaic_control_role", "1 for the role a member has registered with.",
               {"instance", "role"}),
      gauge_of("moesaic_control_ready", "1 while this process answers 200 on /ready, else 0."),
      // trace, process
      counter_of("moesaic_trace_dropped_spans_total",
                 "Spans lost because the exporter fell behind."),
      gauge_of("moesaic_process_info", "1; says which version runs.", {"version"}),
      gauge_of("moesaic_process_start_time_seconds", "Start of the process, seconds since 1970."),
      gauge_of("moesaic_process_resident_memory_bytes", "Memory of the process that is in RAM."),
      counter_of("moesaic_process_cpu_seconds_total", "Processor time used, user and system."),
      gauge_of("moesaic_process_open_fds", "Open file descriptors."),
  };
}

}  // namespace

std::span<const Spec> list() {
  static const std::vector<Spec> specs = make_list();
  return specs;
}

}  // namespace moesaic::metrics
