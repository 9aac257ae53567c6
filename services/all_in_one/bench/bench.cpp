#include "services/all_in_one/bench/bench.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "common/base/available_memory.hpp"
#include "common/base/machine.hpp"
#include "common/kernels/isa.hpp"
#include "common/model/vision_tower.hpp"
#include "common/model/weight_list.hpp"
#include "services/all_in_one/bench/ceiling.hpp"
#include "services/all_in_one/bench/cold_load.hpp"
#include "services/all_in_one/bench/driver.hpp"
#include "services/all_in_one/operations.hpp"

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

/// The multiply-add peak around passes: its mean before and after each, as what a shared core has
/// left for us changes all the time.
class PeakCeiling {
 public:
  PeakCeiling(Compute compute, ThreadPool& pool) : compute_(compute), pool_(pool) { measure(0); }
  /// Operations/s beside a pass of so many seconds that has just ended.
  double after(double seconds) {
    const double before = last_;
    measure(seconds);
    return (before + last_) / 2 * 1e9;
  }

 private:
  void measure(double seconds) {
    last_ = measure_peak_gops(active_isa(), compute_, pool_, std::clamp(seconds / 8, 0.1, 1.0));
  }

  Compute compute_;
  ThreadPool& pool_;
  double last_ = 0;
};

/// Bytes of the matrices that every step reads, and of one text expert.
struct Weights {
  double always = 0;
  double expert = 0;
};

Weights weight_bytes(const LoadedModel& model) {
  Weights bytes;
  bytes.always = static_cast<double>(model.decoder->lm_head.bytes());
  for (std::uint32_t l = 0; l < model.config.layers; ++l) {
    const auto& layer = model.decoder->layers[l];
    bytes.always += static_cast<double>(layer.qkv.bytes() + layer.attn_out.bytes() +
                                        layer.ffn.gate_up.bytes() + layer.ffn.down.bytes());
    if (!layer.moe) continue;
    bytes.always +=
        static_cast<double>(model.config.experts[0]) * model.config.hidden * sizeof(float);
    const auto& experts = model.experts.front()->weights().layers[l][0];
    if (!experts.empty())
      bytes.expert = static_cast<double>(experts[0].gate_up.bytes() + experts[0].down.bytes());
  }
  return bytes;
}

Result<BenchResult> bench_decode(const LoadedModel& model, Compute kv, std::size_t batch,
                                 std::size_t context, std::size_t passes, ReadCeiling& ceiling) {
  BenchDriver driver(model, kv, batch, context + passes + 1);
  driver.fill(context);
  const auto weights = weight_bytes(model);
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
    const double read = weights.always + static_cast<double>(experts) * weights.expert +
                        static_cast<double>(batch * at) * driver.token_bytes();
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
  result.gops_per_step = static_cast<double>(batch) * layer_operations(model.config) * 1e-9;
  result.read_share = figures.share();
  return result;
}

Result<BenchResult> bench_prefill(const LoadedModel& model, Compute kv, std::size_t tokens,
                                  std::size_t chunk, std::size_t passes) {
  BenchDriver driver(model, kv, 1, tokens);
  const double ops = prefill_operations(model.config, tokens);
  PeakCeiling ceiling(model.compute, *model.pool);
  PassTimer timer(*model.pool);
  Passes figures;
  // The first pass warms up, but one that is long enough needs no warming.
  for (std::size_t pass = passes > 1 ? 0 : 1; pass <= passes; ++pass) {
    Result<void> done;
    const auto time = timer.time([&] {
      for (std::size_t first = 0; first < tokens && done; first += chunk)
        done = driver.run(first, std::min(chunk, tokens - first));
    });
    const bool clean = timer.clean();
    MOESAIC_CHECK(done);
    const double peak = ceiling.after(time);
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
  VisionTower tower(model.config, model.vision, model.vision_compute);
  const double p = static_cast<double>(patches);
  const double merged = static_cast<double>(v.hidden) * v.spatial_merge * v.spatial_merge;
  const double tokens = p / (v.spatial_merge * v.spatial_merge);
  const double block = 4.0 * v.hidden * v.hidden + 2.0 * v.hidden * v.intermediate;
  const double linear =
      2 * (p * (static_cast<double>(v.hidden) * v.patch_values() + v.depth * block) +
           tokens * (merged * merged * (2 + 3) + merged * model.config.hidden));
  const double attention = 4 * p * p * v.depth * v.hidden;
  // Attention has the tower's form, linears that of their weights.
  PeakCeiling ceiling(model.vision_compute, *model.pool);
  std::optional<PeakCeiling> integer_ceiling;
  if (is_integer(model.vision->patch_embed.format))
    integer_ceiling.emplace(Compute::kInt, *model.pool);
  PassTimer timer(*model.pool);
  Passes figures;
  for (std::size_t pass = 0; pass <= passes; ++pass) {
    const auto time = timer.time([&] { tower.encode(input, grid, *model.pool); });
    const bool clean = timer.clean();
    const double peak = ceiling.after(time);
    const double linear_peak = integer_ceiling ? integer_ceiling->after(time) : peak;
    if (pass == 0 && passes > 1) continue;
    figures.add(clean, time, (attention / peak + linear / linear_peak) / time);
  }
  BenchResult result;
  result.test = "vision";
  result.context = patches;
  result.seconds_per_step = figures.seconds();
  result.tokens_per_second = tokens / result.seconds_per_step;
  result.gops_per_step = (attention + linear) * 1e-9;
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

double parameters_of(const ModelConfig& config) {
  double count = 0;
  for_each_weight(config, [&](const WeightId& id) {
    count += static_cast<double>(weight_shape(config, id).elements());
  });
  return count;
}

BenchResult load_row(const BenchLoad& load) {
  BenchResult row;
  row.test = "load";
  row.bytes_per_step = load.bytes;
  row.seconds_per_step = load.seconds;
  if (load.disk_rate > 0) row.disk_share = load.bytes / load.seconds / load.disk_rate;
  return row;
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

Result<BenchReport> run_bench(const LoadedModel& model, const BenchLoad& load,
                              const BenchOptions& options,
                              const std::function<void(const std::string&)>& progress) {
  const auto kv = options.kv.value_or(model.compute);
  const auto fits = [&](std::size_t tokens) { return tokens <= model.config.max_positions; };
  BenchReport report;
  report.cpu = cpu_name();
  report.isa = isa_name(active_isa());
  for (const auto isa : available_isas()) report.features.emplace_back(isa_name(isa));
  report.threads = model.pool->size();
  report.layers = model.config.layers;
  report.parameters = parameters_of(model.config);
  report.model_bytes = held_bytes(model);
  report.format = format_name(model.decoder->layers.back().ffn.gate_up.format);
  report.disk_gbs = load.disk_rate * 1e-9;
  report.results.push_back(load_row(load));
  progress("ceilings");
  ReadCeiling ceiling(*model.pool);
  report.peak_gops = measure_peak_gops(active_isa(), model.compute, *model.pool);
  if (model.vision)
    report.vision_peak_gops = measure_peak_gops(active_isa(), model.vision_compute, *model.pool);

  const auto decode = [&](std::size_t batch, std::size_t context, std::size_t passes) {
    progress("decode, batch " + std::to_string(batch) + ", context " + std::to_string(context));
    return bench_decode(model, kv, batch, context, passes, ceiling);
  };
  for (std::size_t i = 0; i < options.contexts.size(); ++i)
    for (const auto batch : options.batches) {
      const auto context = options.contexts[i];
      // Batches at the first context only: a row for each would say little more.
      if (!fits(context + options.passes + 1) || (i > 0 && batch != options.batches.front()))
        continue;
      MOESAIC_TRY(auto result, decode(batch, context, options.passes));
      report.results.push_back(std::move(result));
    }
  const auto few = std::max<std::size_t>(1, options.passes / 3);
  auto prefills = options.prefills;
  if (options.long_prefill > 0) prefills.push_back(options.long_prefill);
  for (const auto tokens : prefills) {
    if (!fits(tokens)) continue;
    progress("prefill, " + std::to_string(tokens) + " tokens");
    const auto passes = tokens == options.long_prefill ? 1 : few;
    MOESAIC_TRY(auto result, bench_prefill(model, kv, tokens, options.prefill_chunk, passes));
    report.results.push_back(std::move(result));
  }
  if (model.vision)
    for (const auto side : options.images) {
      progress("vision, " + std::to_string(side) + " x " + std::to_string(side) + " pixels");
      report.results.push_back(bench_vision(model, side, few));
    }
  if (constexpr std::size_t kDecoded = 32;
      options.long_context > kDecoded && fits(options.long_context)) {
    MOESAIC_TRY(auto result, decode(1, options.long_context - kDecoded - 1, kDecoded));
    report.results.push_back(std::move(result));
  }
  report.read_gbs = ceiling.median_gbs();
  report.peak_memory = static_cast<double>(peak_resident_bytes());
  return report;
}

}  // namespace moesaic
