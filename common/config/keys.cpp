#include "common/config/keys.hpp"

#include <algorithm>
#include <cassert>
#include <filesystem>

namespace moesaic {
namespace {

using Kind = SettingSpec::Kind;

constexpr std::int64_t kGiB = std::int64_t{1} << 30;

constexpr SettingSpec kKeys[] = {
    {"node.name", Kind::kText, "", "this instance, unique in its role; empty: the role and -0", 0,
     0, ""},
    {"node.labels", Kind::kText, "", "what placements match: node=a,tier=fast", 0, 0, ""},
    {"http.host", Kind::kText, "127.0.0.1", "address to listen on", 0, 0, ""},
    {"http.port", Kind::kInteger, "8080", "port; 0: the system chooses", 0, 65535, ""},
    {"http.insecure_no_auth", Kind::kChoice, "no",
     "listen beyond loopback without keys (short: --insecure-no-auth)", 0, 0, "yes|no"},
    {"admin.host", Kind::kText, "127.0.0.1", "address of /health, /ready, /metrics", 0, 0, ""},
    {"admin.insecure_no_auth", Kind::kChoice, "no", "listen beyond loopback without keys", 0, 0,
     "yes|no"},
    {"admin.port", Kind::kInteger, "0", "its port; 0: the system chooses", 0, 65535, ""},
    {"model.dir", Kind::kText, "", "checkpoint directory; empty: the demo model (short: --model)",
     0, 0, ""},
    {"model.name", Kind::kText, "", "name clients use; empty: the directory's name", 0, 0, ""},
    {"model.compute", Kind::kChoice, "auto",
     "precision; auto: bf16, of quantised weights int (short: --compute)", 0, 0,
     "auto|f32|bf16|int"},
    {"chat.format", Kind::kChoice, "auto", "how conversations are rendered", 0, 0,
     "auto|ernie-vl|ernie-vl-thinking"},
    {"engine.threads", Kind::kInteger, "0", "kernel threads; 0: one per CPU", 0, 1024, ""},
    {"engine.experts", Kind::kText, "local",
     "local, or routed:N through N shards in this process (short: --experts)", 0, 0, ""},
    {"engine.numerics", Kind::kChoice, "auto",
     "portable: the same bits on every CPU; avx512bf16: that level's own bf16 sums; auto: as "
     "MOESAIC_ISA says, else portable",
     0, 0, "auto|portable|avx512bf16"},
    {"engine.max_context", Kind::kInteger, "0", "prompt and answer, tokens; 0: the model's", 0,
     1 << 24, ""},
    {"engine.max_running", Kind::kInteger, "32", "sequences computed together", 1, 4096, ""},
    {"engine.max_waiting", Kind::kInteger, "256",
     "sequences that may wait; more are refused with 503", 1, 1 << 20, ""},
    {"engine.step_rows", Kind::kInteger, "512", "tokens of one step, all sequences together", 1,
     1 << 16, ""},
    {"engine.prefill_chunk", Kind::kInteger, "512", "tokens of one sequence in one step", 1,
     1 << 16, ""},
    {"kv.dtype", Kind::kChoice, "auto",
     "what keys and values are kept as; auto: as the model computes, int8 if it is quantised", 0, 0,
     "auto|f32|bf16|int8"},
    {"kv.bytes", Kind::kInteger, "0", "KV cache, bytes; 0: what weights, buffers and 1 GiB leave",
     0, 1024 * kGiB, ""},
    {"vision.cache_bytes", Kind::kInteger, "268435456", "features of images kept, bytes", 0,
     1024 * kGiB, ""},
    {"shard.capacity_bytes", Kind::kInteger, "0",
     "memory for experts, bytes; 0: what is available less 1 GiB", 0, 1024 * kGiB, ""},
    {"shard.expert_metrics", Kind::kChoice, "no",
     "a metric series for each expert (thousands); GET /experts of the admin port tells the same "
     "without",
     0, 0, "yes|no"},
    {"transport.listen", Kind::kText, "",
     "where the data plane listens, comma-separated, best first: shm:///path, ipc:///path, "
     "tcp://host:port",
     0, 0, ""},
    {"transport.keys", Kind::kText, "", "folder of CURVE keys; empty: none", 0, 0, ""},
    {"transport.plaintext", Kind::kChoice, "no",
     "allow unencrypted tcp beyond loopback: anybody on the network may read and forge", 0, 0,
     "yes|no"},
    {"router.endpoints", Kind::kText, "router-0=tcp://127.0.0.1:7400",
     "control of the routers, comma-separated name=address", 0, 0, ""},
    {"router.dispatch_threads", Kind::kInteger, "1", "kernel threads of the router's dispatch", 1,
     64, ""},
    {"router.listen", Kind::kText, "tcp://127.0.0.1:7400", "where this router's control listens", 0,
     0, ""},
    {"router.dispatch", Kind::kChoice, "central",
     "who talks to the shards: the router (central) or each decoder (direct)", 0, 0,
     "central|direct"},
    {"router.shards", Kind::kInteger, "0",
     "shards to wait for before the first placement; 0: what the placement file needs, else 1", 0,
     64, ""},
    {"placement.file", Kind::kText, "", "YAML: which experts on which shards; empty: even ranges",
     0, 0, ""},
    {"registry.kind", Kind::kChoice, "embedded",
     "where routers agree on who leads: in the one router, or in etcd", 0, 0, "embedded|etcd"},
    {"registry.file", Kind::kText, "",
     "embedded: keeps what `moesaic place` gave for the next start, where it wins over "
     "placement.file; empty: not kept",
     0, 0, ""},
    {"registry.endpoints", Kind::kText, "http://127.0.0.1:2379", "of etcd, comma-separated", 0, 0,
     ""},
    {"limits.body_bytes", Kind::kInteger, "67108864", "one request body", 1024, 4 * kGiB, ""},
    {"limits.header_bytes", Kind::kInteger, "16384", "request line and headers", 1024, 1 << 20, ""},
    {"limits.images", Kind::kInteger, "16", "images of one request", 0, 4096, ""},
    {"limits.video_frames", Kind::kInteger, "180", "frames of one video", 1, 4096, ""},
    {"limits.image_bytes", Kind::kInteger, "20971520", "one image file", 64, 4 * kGiB, ""},
    {"limits.image_pixels", Kind::kInteger, "50000000", "pixels of one image, from its header", 1,
     std::int64_t{1} << 31, ""},
    {"limits.drain_seconds", Kind::kInteger, "10", "time for open requests to end after SIGTERM", 0,
     3600, ""},
    {"metrics.compat", Kind::kChoice, "none",
     "also export series under another server's names (short: --metrics-compat)", 0, 0,
     "none|vllm"},
    {"trace.endpoint", Kind::kText, "", "OTLP/HTTP collector, http://host:port; empty: no traces",
     0, 0, ""},
    {"trace.sample_percent", Kind::kInteger, "100", "of requests without a traceparent", 0, 100,
     ""},
    {"log.level", Kind::kChoice, "info", "least level that is logged", 0, 0,
     "debug|info|warn|error"},
};

}  // namespace

std::span<const SettingSpec> all_keys() { return kKeys; }

std::vector<SettingSpec> select_keys(
    std::initializer_list<std::string_view> wanted,
    std::initializer_list<std::pair<std::string_view, std::string_view>> defaults) {
  std::vector<SettingSpec> selected;
  for (const auto& key : kKeys) {
    const auto section = key.key.substr(0, key.key.find('.'));
    if (std::none_of(wanted.begin(), wanted.end(),
                     [&](auto want) { return want == section || want == key.key; }))
      continue;
    selected.push_back(key);
    for (const auto& [name, value] : defaults)
      if (name == key.key) selected.back().default_value = value;
  }
  return selected;
}

std::string model_name(const Settings& settings, const std::string& directory) {
  const auto& named = settings.text("model.name");
  if (!named.empty()) return named;
  // A trailing slash has no name of its own.
  return std::filesystem::path(directory + "/.").lexically_normal().parent_path().filename();
}

std::string keys_as_yaml(std::span<const SettingSpec> keys, std::string_view program) {
  std::string yaml =
      "# Every key of `" + std::string(program) +
      "` with its default: --config FILE reads such a file. A key a.b_c is also the "
      "flag --a-b-c\n# and the environment variable MOESAIC_A_B_C; flags win over the "
      "environment, the environment over the file.\n";
  std::string_view open;
  for (const auto& key : keys) {
    const auto dot = key.key.find('.');
    const auto section = key.key.substr(0, dot);
    if (section != open) yaml += std::string(section) + ":\n";
    open = section;
    yaml += "  " + std::string(key.key.substr(dot + 1)) + ": ";
    // Quoted: a choice between yes and no is a word here, not a truth value.
    yaml += key.kind == Kind::kInteger ? std::string(key.default_value)
                                       : '"' + std::string(key.default_value) + '"';
    yaml += "  # " + std::string(key.help);
    if (!key.choices.empty()) yaml += " (" + std::string(key.choices) + ")";
    yaml += "\n";
  }
  return yaml;
}

}  // namespace moesaic
