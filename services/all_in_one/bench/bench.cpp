#include "services/all_in_one/bench/bench.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "common/base/machine.hpp"
#include "common/engine/local_experts.hpp"
#include "common/engine/sequence.hpp"
#include "common/kernels/isa.hpp"
#include "common/model/vision_tower.hpp"
#include "services/all_in_one/bench/ceiling.hpp"

namespace moesaic {
namespace {

/// Figures of one test over its passes. Those in which a worker lost its core to another program
/// say nothing about the kernels: they are left out, unless there is no other.
class Passes {
 public:
  void add(bool clean, double seconds, double share) {
    auto& to = clean ? clean_ : disturbed_;
    to.seconds.push_back(seconds);
    to.shares.push_back(share);
  }
  double seconds() const { return median(used().seconds); }
  double share() const { return median(used().shares); }

 private:
  struct Figures {
    std::vector<double> seconds, shares;
  };
  const Figures& used() const { return clean_.seconds.empty() ? disturbed_ : clean_; }

  Figures clean_, disturbed_;
};

/// Counts the distinct experts that a step reads.
class ExpertCounter final : public TapSink {
 public:
  void put(const std::string&, std::span<const float>, std::span<const std::size_t>) override {}
  void put(const std::string& name, std::span<const std::int32_t> ids,
           std::span<const std::size_t>) override {
    if (!name.ends_with(".index")) return;
    distinct_ += std::set<std::int32_t>(ids.begin(), ids.end()).size();
  }
  bool fine() const override { return false; }
  double take() { return static_cast<double>(std::exchange(distinct_, 0)); }

 private:
  std::size_t distinct_ = 0;
};

/// Bytes of the matrices that every step reads, and of one text expert.
struct Weights {
  double always = 0;
  double expert = 0;
};

Weights weight_bytes(const LoadedModel& model) {
  Weights bytes;
  bytes.always = static_cast<double>(model.decoder->lm_head.bytes());
  for (const auto& layer : model.decoder->layers) {
    bytes.always += static_cast<double>(layer.qkv.bytes() + layer.attn_out.bytes());
    if (layer.ffn.gate_up.data != nullptr)
      bytes.always += static_cast<double>(layer.ffn.gate_up.bytes() + layer.ffn.down.bytes());
    if (layer.moe)
      bytes.always +=
          static_cast<double>(model.config.experts[0]) * model.config.hidden * sizeof(float);
  }
  bytes.expert = 3.0 * model.config.hidden * model.config.expert_width[0] * 2;
  return bytes;
}

/// Multiply-adds of one token through the layers, in operations (two each); attention and output
/// matrix apart.
double layer_ops(const ModelConfig& c) {
  double macs = 0;
  for (std::uint32_t layer = 0; layer < c.layers; ++layer) {
    macs += static_cast<double>(c.hidden) * c.head_dim * (2.0 * c.heads + 2.0 * c.kv_heads);
    const double width =
        c.layer_is_moe[layer]
            ? c.shared_width + static_cast<double>(c.experts_per_token) * c.expert_width[0]
            : c.intermediate;
    macs += 3.0 * c.hidden * width;
    if (c.layer_is_moe[layer]) macs += static_cast<double>(c.hidden) * c.experts[0];
  }
  return 2 * macs;
}

/// Token ids that differ from step to step, so that the experts do.
std::int32_t some_id(const ModelConfig& config, std::uint64_t n) {
  const auto hash = (n + 1) * 0x9E3779B97F4A7C15U;
  auto id = static_cast<std::int32_t>((hash >> 33) % config.vocab_size);
  while (config.routing_modality(id) != Modality::kText)
    id = (id + 1) % static_cast<std::int32_t>(config.vocab_size);
  return id;
}

/// The decoder over a cache of its own, driven step by step as the engine drives it.
class Driver {
 public:
  Driver(const LoadedModel& model, std::size_t sequences, std::size_t tokens)
      : kv_(DecoderStep::attention_shape(model.config, model.compute), model.config.layers,
            sequences * kv_blocks_for(tokens)),
        experts_(model.config, model.gates, model.experts.front(), *model.pool),
        step_(model.config, model.decoder, model.compute, kv_, experts_, *model.pool) {
    for (std::size_t s = 0; s < sequences; ++s) {
      auto request = std::make_shared<GenerateRequest>();
      auto& sequence = sequences_.emplace_back();
      for (std::size_t i = 0; i < tokens; ++i)
        sequence.tokens.push_back(some_id(model.config, next_id_++));
      request->prompt = sequence.tokens;
      sequence.request = request;
      for (std::size_t i = 0; i < kv_blocks_for(tokens); ++i)
        sequence.blocks.push_back(*kv_.allocate());
    }
  }

  /// All sequences compute tokens [first, first + rows); logits of the last row each.
  Result<void> run(std::size_t first, std::size_t rows) {
    batch_.clear();
    for (const auto& sequence : sequences_) {
      append_rows(sequence, first, rows, batch_);
      batch_.logit_rows.push_back(static_cast<std::uint32_t>(batch_.ids.size() - 1));
    }
    if (const auto done = step_.run(batch_); !done) return tl::make_unexpected(done.error());
    return {};
  }

  /// Runs it once more, counting expert matrices.
  Result<double> count_experts(std::size_t first, std::size_t rows) {
    step_.set_taps(&counter_);
    const auto done = run(first, rows);
    step_.set_taps(nullptr);
    if (!done) return tl::make_unexpected(done.error());
    return counter_.take();
  }

 private:
  PagedKvCache kv_;
  LocalExperts experts_;
  DecoderStep step_;
  ExpertCounter counter_;
  std::vector<Sequence> sequences_;
  StepBatch batch_;
  std::uint64_t next_id_ = 0;
};

constexpr std::size_t kFillChunk = 512;

Result<BenchResult> bench_decode(const LoadedModel& model, std::size_t batch, std::size_t context,
                                 std::size_t passes, ReadCeiling& ceiling) {
  Driver driver(model, batch, context + passes + 1);
  for (std::size_t first = 0; first < context; first += kFillChunk)
    MOESAIC_CHECK(driver.run(first, std::min(kFillChunk, context - first)));
  const auto weights = weight_bytes(model);
  const auto shape = DecoderStep::attention_shape(model.config, model.compute);
  const double token_kv =
      static_cast<double>(PagedKvCache::block_bytes(shape, model.config.layers)) / kPageTokens;
  PassTimer timer(*model.pool);
  Passes figures;
  std::vector<double> bytes;
  for (std::size_t pass = 0; pass <= passes; ++pass) {
    const auto at = context + pass;
    MOESAIC_TRY(const auto experts, driver.count_experts(at, 1));
    Result<void> done;
    const auto time = timer.time([&] { done = driver.run(at, 1); });
    const bool clean = timer.clean();
    MOESAIC_CHECK(done);
    const double read =
        weights.always + experts * weights.expert + static_cast<double>(batch * at) * token_kv;
    const auto ceiling_rate = ceiling.measure(read);
    if (pass == 0) continue;  // warm-up
    bytes.push_back(read);
    figures.add(clean, time, read / time / ceiling_rate);
  }
  BenchResult result;
  result.test = "decode";
  result.batch = batch;
  result.context = context;
  result.seconds_per_step = figures.seconds();
  result.tokens_per_second = static_cast<double>(batch) / result.seconds_per_step;
  result.bytes_per_step = median(bytes);
  result.gops_per_step = static_cast<double>(batch) * layer_ops(model.config) * 1e-9;
  result.read_share = figures.share();
  return result;
}

Result<BenchResult> bench_prefill(const LoadedModel& model, std::size_t tokens,
                                  std::size_t passes) {
  Driver driver(model, 1, tokens);
  const auto& c = model.config;
  const double attention = 4.0 * c.layers * c.heads * c.head_dim * static_cast<double>(tokens) *
                           static_cast<double>(tokens + 1) / 2;
  const double ops =
      layer_ops(c) * static_cast<double>(tokens) + attention + 2.0 * c.hidden * c.vocab_size;
  PassTimer timer(*model.pool);
  Passes figures;
  for (std::size_t pass = 0; pass <= passes; ++pass) {
    Result<void> done;
    const auto time = timer.time([&] { done = driver.run(0, tokens); });
    const bool clean = timer.clean();
    MOESAIC_CHECK(done);
    const double peak = measure_peak_gops(active_isa(), model.compute, *model.pool) * 1e9;
    if (pass == 0) continue;
    figures.add(clean, time, ops / time / peak);
  }
  BenchResult result;
  result.test = "prefill";
  result.context = tokens;
  result.seconds_per_step = figures.seconds();
  result.tokens_per_second = static_cast<double>(tokens) / result.seconds_per_step;
  result.gops_per_step = ops * 1e-9;
  result.peak_share = figures.share();
  return result;
}

BenchResult bench_vision(const LoadedModel& model, std::size_t side, std::size_t passes) {
  const auto& v = model.config.vision;
  const auto across =
      static_cast<std::int32_t>(std::max<long>(1, std::lround(static_cast<double>(side) / 28)) * 2);
  const VisualGrid grid{1, across, across};
  const auto patches = static_cast<std::size_t>(across) * static_cast<std::size_t>(across);
  std::vector<float> input(patches * v.patch_values());
  for (std::size_t i = 0; i < input.size(); ++i)
    input[i] = static_cast<float>(i * 2654435761U % 1000) / 250.0F - 2.0F;
  VisionTower tower(model.config, model.vision, model.compute);
  const double p = static_cast<double>(patches);
  const double merged = static_cast<double>(v.hidden) * v.spatial_merge * v.spatial_merge;
  const double tokens = p / (v.spatial_merge * v.spatial_merge);
  const double block =
      4.0 * v.hidden * v.hidden + 2.0 * v.hidden * v.intermediate + 2.0 * p * v.hidden;
  const double ops = 2 * (p * (static_cast<double>(v.hidden) * v.patch_values() + v.depth * block) +
                          tokens * (merged * merged * (2 + 3) + merged * model.config.hidden));
  PassTimer timer(*model.pool);
  Passes figures;
  for (std::size_t pass = 0; pass <= passes; ++pass) {
    const auto time = timer.time([&] { tower.encode(input, grid, *model.pool); });
    const bool clean = timer.clean();
    const double peak = measure_peak_gops(active_isa(), model.compute, *model.pool) * 1e9;
    if (pass == 0 && passes > 1) continue;
    figures.add(clean, time, ops / time / peak);
  }
  BenchResult result;
  result.test = "vision";
  result.context = patches;
  result.seconds_per_step = figures.seconds();
  result.tokens_per_second = tokens / result.seconds_per_step;
  result.gops_per_step = ops * 1e-9;
  result.peak_share = figures.share();
  return result;
}

double held_bytes(const LoadedModel& model) {
  double bytes = static_cast<double>(model.decoder->embedding.bytes());
  for (const auto& layer : model.decoder->layers)
    bytes += static_cast<double>(layer.qkv.bytes() + layer.attn_out.bytes() +
                                 layer.ffn.gate_up.bytes() + layer.ffn.down.bytes());
  for (const auto& table : model.experts) bytes += static_cast<double>(table->bytes());
  return bytes;
}

}  // namespace

std::uint32_t layers_that_fit(const ModelConfig& config) {
  const double expert_bytes =
      6.0 * config.hidden *
      (static_cast<double>(config.experts[0]) * config.expert_width[0] +
       static_cast<double>(config.experts[1]) * config.expert_width[1] + config.shared_width);
  const double attention = 4.0 * config.hidden * config.head_dim * (config.heads + config.kv_heads);
  const double fixed =
      2.0 * config.hidden * config.vocab_size + 6.0 * config.hidden * config.intermediate + 2e9;
  const double room = 0.75 * static_cast<double>(available_memory()) - fixed;
  return static_cast<std::uint32_t>(
      std::clamp(room / (expert_bytes + attention), 2.0, static_cast<double>(config.layers)));
}

Result<BenchReport> run_bench(const LoadedModel& model, double load_seconds,
                              const BenchOptions& options) {
  BenchReport report;
  report.cpu = cpu_name();
  report.isa = isa_name(active_isa());
  report.threads = model.pool->size();
  report.layers = model.config.layers;
  ReadCeiling ceiling(*model.pool);
  report.peak_gops = measure_peak_gops(active_isa(), model.compute, *model.pool);

  BenchResult load;
  load.test = "load";
  load.bytes_per_step = held_bytes(model);
  load.seconds_per_step = load_seconds;
  report.results.push_back(load);
  const auto few = std::max<std::size_t>(1, options.passes / 3);
  for (const auto context : options.contexts)
    for (const auto batch : options.batches) {
      MOESAIC_TRY(auto result, bench_decode(model, batch, context, options.passes, ceiling));
      report.results.push_back(std::move(result));
    }
  for (const auto tokens : options.prefills) {
    MOESAIC_TRY(auto result, bench_prefill(model, tokens, few));
    report.results.push_back(std::move(result));
  }
  if (model.vision)
    for (const auto side : options.images) report.results.push_back(bench_vision(model, side, few));
  report.read_gbs = ceiling.median_gbs();
  return report;
}

}  // namespace moesaic
