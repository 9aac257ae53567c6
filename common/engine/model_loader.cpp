#include "common/engine/model_loader.hpp"

#include "common/base/available_memory.hpp"
#include "common/base/progress_line.hpp"
#include "common/engine/expert_geometry.hpp"
#include "common/engine/expert_loading.hpp"
#include "common/kernels/page_probe.hpp"
#include "common/kernels/stream_probe.hpp"
#include "common/model/weight_list.hpp"

namespace moesaic {
namespace {

/// The formats that weights of a checkpoint are held in.
PackPolicy formats_held(const OpenedModel& model) {
  auto policy = PackPolicy::uniform(WeightFormat::kBf16);
  if (model.compute != Compute::kInt) return policy;
  for_each_weight(model.config, [&](const WeightId& id) {
    const auto format = model.source->packed_format(id);
    const auto component = component_of(id);
    if (format && policy.at(component, id.layer) != *format)
      policy.add({component, id.layer, id.layer, *format});
  });
  return policy;
}

/// True if any matrix is stored quantised.
bool is_quantized(const ModelConfig& config, const WeightSource& source) {
  bool any = false;
  for_each_weight(config, [&](const WeightId& id) { any = any || source.packed_format(id); });
  return any;
}

}  // namespace

Result<Compute> parse_compute(const std::string& name) {
  if (name == "f32") return Compute::kF32;
  if (name == "bf16") return Compute::kBf16;
  if (name == "int") return Compute::kInt;
  return fail(Errc::kInvalidArgument, "compute \"" + name + "\": expected f32, bf16 or int");
}

std::string_view compute_name(Compute compute) {
  return compute == Compute::kF32 ? "f32" : compute == Compute::kBf16 ? "bf16" : "int";
}

namespace {

/// The modes of the text side and of the vision tower.
Result<void> choose_compute(const ModelOptions& options, OpenedModel& opened) {
  opened.compute = opened.pack                                   ? opened.pack->compute()
                   : is_quantized(opened.config, *opened.source) ? Compute::kInt
                                                                 : Compute::kBf16;
  if (options.compute != "auto") {
    MOESAIC_TRY(const auto asked, parse_compute(options.compute));
    const bool quantized = opened.compute == Compute::kInt;
    // A checkpoint's own quantised weights can be widened, a pack's panels cannot.
    if (asked == Compute::kInt ? !quantized : quantized && opened.pack)
      return fail(
          Errc::kInvalidArgument,
          options.model + ": " +
              (quantized ? "quantised weights are computed in int, not in " + options.compute
                         : std::string("int needs quantised weights (`moesaic quantize` "
                                       "makes them)")));
    opened.compute = asked;
  }
  opened.vision_compute = normed_form(opened.compute);
  return {};
}

}  // namespace

Result<OpenedModel> open_model(const ModelOptions& options) {
  OpenedModel opened;
  opened.pool = std::make_shared<ThreadPool>(options.threads);
  const bool synthetic = !options.synthetic.empty();
  MOESAIC_TRY(opened.config, load_model_config(synthetic ? options.synthetic : options.model));
  const auto full = opened.config;
  if (!synthetic && is_pack(options.model)) {
    MOESAIC_TRY(opened.pack, Pack::open(options.model, full));
  }
  if (synthetic) {
    opened.source = synthetic_weights(full, opened.pool->size());
  } else if (!opened.pack) {
    MOESAIC_TRY(opened.source, open_checkpoint(options.model, full));
  }
  MOESAIC_CHECK(choose_compute(options, opened));
  if (opened.compute == Compute::kInt) {
    tune_streams();
    tune_page_streams();
  }
  if (options.layers > 0 && options.layers < opened.config.layers) {
    opened.config.layers = options.layers;
    opened.config.layer_is_moe.resize(options.layers);
    if (opened.pack) {
      MOESAIC_TRY(opened.pack, Pack::open(options.model, opened.config));
    }
  }
  return opened;
}

Result<DecoderWeights> OpenedModel::decoder(const LoadProgress& progress) const {
  return pack ? pack->decoder(*pool, progress) : load_decoder(config, *source, compute, progress);
}

Result<RouterWeights> OpenedModel::routers() const {
  return pack ? pack->routers() : load_routers(config, *source, compute);
}

Result<ExpertWeights> OpenedModel::experts(const ExpertFilter& held,
                                           const LoadProgress& progress) const {
  return pack ? pack->experts(held, *pool, progress)
              : load_experts(config, *source, compute, held, progress);
}

Result<VisionWeights> OpenedModel::vision(const LoadProgress& progress) const {
  return pack ? pack->vision(*pool, progress)
              : load_vision(config, *source, vision_compute, progress);
}

cluster::ExpertGeometry OpenedModel::geometry() const {
  std::array<WeightFormat, kModalities> formats{WeightFormat::kBf16, WeightFormat::kBf16};
  if (pack)
    for (std::size_t m = 0; m < kModalities; ++m)
      formats[m] = pack->expert_format(config.layers - 1, static_cast<Modality>(m));
  else if (compute == Compute::kInt)
    for (std::size_t m = 0; m < kModalities; ++m)
      formats[m] = source
                       ->packed_format(
                           {WeightKind::kExpertGate, config.layers - 1, static_cast<Modality>(m)})
                       .value_or(WeightFormat::kBf16);
  return expert_geometry(config, compute, formats);
}

cluster::PlacementTable shard_placement(const ModelConfig& config, Compute compute,
                                        std::size_t shards) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < shards; ++i) names.push_back("expert-shard-" + std::to_string(i));
  return cluster::PlacementTable::even_ranges(expert_geometry(config, compute), std::move(names));
}

WeightPlan OpenedModel::weights() const {
  return plan_weights(config, pack ? pack->policy() : formats_held(*this));
}

Result<LoadedModel> load_model(const ModelOptions& options) {
  MOESAIC_TRY(const auto opened, open_model(options));
  return load_model(opened, options);
}

Result<LoadedModel> load_model(const OpenedModel& opened, const ModelOptions& options) {
  LoadedModel loaded;
  loaded.config = opened.config;
  loaded.compute = opened.compute;
  loaded.vision_compute = opened.vision_compute;
  loaded.pool = opened.pool;
  loaded.pack = opened.pack;
  const auto weights = opened.weights();
  const auto total = weights.bytes() - (options.vision ? 0 : weights.bytes_of("vision"));
  if (opened.pack) loaded.mapped_bytes = total;
  // Refused now with the numbers, rather than ended by the system half-way.
  if (const auto available = available_memory(); total > available)
    return fail(Errc::kOverloaded, "the weights need " + std::to_string(total >> 20) + " MiB, " +
                                       std::to_string(available >> 20) +
                                       " MiB of memory are available");
  ProgressLine line("loading", total);
  // Each part counts from zero.
  std::uint64_t before = 0, last = 0;
  const LoadProgress progress = [&](std::uint64_t bytes, const std::string& what) {
    if (bytes < last) before += last;
    last = bytes;
    line(before + bytes, what);
    if (options.on_progress) options.on_progress(before + bytes, total, what);
  };
  MOESAIC_TRY(auto decoder, opened.decoder(progress));
  loaded.decoder = std::make_shared<const DecoderWeights>(std::move(decoder));
  MOESAIC_TRY(auto gates, opened.routers());
  loaded.gates = std::make_shared<const RouterWeights>(std::move(gates));
  const auto placement = shard_placement(loaded.config, loaded.compute, options.shards);
  for (const auto& shard : placement.shards) {
    const ExpertFilter held = [&](std::uint32_t layer, Modality modality, std::uint32_t expert) {
      return places(placement, shard, layer, modality, expert);
    };
    MOESAIC_TRY(auto experts, opened.experts(held, progress));
    loaded.experts.push_back(
        std::make_shared<const ExpertTable>(loaded.config, std::move(experts), loaded.compute));
  }
  if (options.vision) {
    MOESAIC_TRY(auto vision, opened.vision(progress));
    loaded.vision = std::make_shared<const VisionWeights>(std::move(vision));
  }
  return loaded;
}

std::filesystem::path demo_model_dir() {
  const std::filesystem::path below = "configs/models/ernie-vl-demo";
  std::error_code error;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
  // build/<preset>/bin/moesaic in a source tree, bin/moesaic with share/moesaic beside it when
  // installed.
  for (const auto* up : {"../../..", "../share/moesaic"}) {
    const auto candidate = (program.parent_path() / up / below).lexically_normal();
    if (std::filesystem::is_directory(candidate, error)) return candidate;
  }
  return below;
}

std::filesystem::path default_font() { return demo_model_dir() / "Roboto-Regular.ttf"; }

}  // namespace moesaic
