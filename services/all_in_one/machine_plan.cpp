#include "services/all_in_one/machine_plan.hpp"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cstdarg>
#include <cstdio>

#include "common/base/available_memory.hpp"
#include "common/engine/make_engine.hpp"
#include "common/media/preprocess.hpp"
#include "common/model/pack.hpp"
#include "services/all_in_one/operations.hpp"

namespace moesaic {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr std::uint64_t kFeatureCache = std::uint64_t{256} << 20;  // vision.cache_bytes
constexpr std::array<std::size_t, 5> kContexts = {1024, 8192, 32768, 65536, 131072};
constexpr std::array<std::size_t, 3> kPrompts = {512, 2048, 8192};

/// In which formats the weights would be held.
Result<PackPolicy> policy_of(const MachinePlanOptions& options, MachinePlan& plan) {
  const bool asked = !options.format.empty() || !options.policy.empty();
  if (fs::is_directory(options.model) && is_pack(options.model)) {
    plan.source = "pack";
    if (asked)
      return fail(Errc::kInvalidArgument,
                  options.model.string() + ": a pack has its formats; give its checkpoint");
    MOESAIC_TRY(const auto pack, Pack::open(options.model, plan.config));
    return pack->policy();
  }
  const bool directory = fs::is_directory(options.model);
  plan.source = directory ? "checkpoint" : "configuration";
  if (!options.policy.empty()) return load_policy(options.policy, plan.config.layers);
  // A checkpoint is served as it is; a configuration alone is planned as what `synth` would write.
  const auto name = !options.format.empty() ? options.format : directory ? "bf16" : "w4";
  const auto format = parse_format(name);
  if (!format || *format == WeightFormat::kF32)
    return fail(Errc::kInvalidArgument, "format \"" + name + "\"; there are: bf16, w8, w4, ccq2");
  return PackPolicy::uniform(*format);
}

Result<Compute> kv_of(const std::string& name, Compute compute) {
  if (name == "auto") return compute;
  if (name == "int8") return Compute::kInt;
  return parse_compute(name);
}

Result<std::uint64_t> vision_bytes(const MachinePlan& plan, const fs::path& model) {
  PreprocessConfig preprocess;
  if (fs::is_directory(model)) {
    MOESAIC_TRY(preprocess, PreprocessConfig::load(model, default_font()));
  }
  return vision_scratch_bytes(plan.config,
                              static_cast<std::uint64_t>(preprocess.image_limits.max_pixels) /
                                  (kPatchSide * kPatchSide)) +
         kFeatureCache;
}

[[gnu::format(printf, 2, 3)]] void print(std::string& text, const char* format, ...) {
  std::array<char, 256> line{};
  std::va_list values;
  va_start(values, format);
  std::vsnprintf(line.data(), line.size(), format, values);
  va_end(values);
  text += line.data();
}

double gb(double bytes) { return bytes * 1e-9; }
double gib(std::uint64_t bytes) { return static_cast<double>(bytes) / (1U << 30); }

const char* kv_name(Compute type) {
  return type == Compute::kInt ? "int8" : type == Compute::kBf16 ? "bf16" : "f32";
}

template <std::size_t N>
std::vector<std::size_t> up_to(const std::array<std::size_t, N>& all, std::size_t most) {
  std::vector<std::size_t> some;
  for (const auto tokens : all)
    if (tokens < most) some.push_back(tokens);
  return some;
}

std::vector<std::size_t> contexts_of(const MachinePlan& plan) {
  auto contexts = up_to(kContexts, plan.memory.context);
  contexts.push_back(plan.memory.context);
  return contexts;
}

}  // namespace

std::size_t MachinePlan::longest_context() const {
  return std::min<std::size_t>(memory.longest_context(), config.max_positions);
}

double MachinePlan::kv_token_bytes() const {
  return static_cast<double>(memory.kv_block_bytes) / kPageTokens;
}

double MachinePlan::token_bytes(std::size_t context) const {
  return static_cast<double>(weights.token_bytes()) +
         kv_token_bytes() * static_cast<double>(context);
}

Result<MachinePlan> plan_machine(const MachinePlanOptions& options) {
  MachinePlan plan;
  MOESAIC_TRY(plan.config, load_model_config(options.model));
  MOESAIC_TRY(const auto policy, policy_of(options, plan));
  plan.weights = plan_weights(plan.config, policy);
  plan.compute = policy.quantized() ? Compute::kInt : Compute::kBf16;
  MOESAIC_TRY(plan.kv_type, kv_of(options.kv, plan.compute));
  plan.sequences = options.sequences;
  if (options.context > plan.config.max_positions)
    return fail(Errc::kInvalidArgument, "a context of " + std::to_string(options.context) +
                                            " tokens; the model has " +
                                            std::to_string(plan.config.max_positions));
  MemorySettings settings;
  settings.kv_type = plan.kv_type;
  settings.max_context = options.context;
  MOESAIC_TRY(settings.beside_bytes, vision_bytes(plan, options.model));
  const auto available = options.memory_bytes > 0 ? options.memory_bytes : available_memory();
  plan.memory = plan_memory(plan.config, settings, plan.weights.bytes(), available);
  // What is wanted, not what is left.
  plan.memory.kv_blocks = options.sequences * kv_blocks_for(plan.memory.context);
  return plan;
}

double prefill_share(Isa isa) { return isa == Isa::kAmx ? 0.35 : 0.60; }

double decode_rate(const MachinePlan& plan, const MachineSpeed& speed, std::size_t context) {
  const auto share = context > kLongContext ? kLongDecodeShare : kDecodeShare;
  return share * speed.read_gbs * 1e9 / plan.token_bytes(context);
}

double prefill_rate(const MachinePlan& plan, const MachineSpeed& speed, std::size_t tokens) {
  return prefill_share(speed.isa) * speed.peak_gops * 1e9 * static_cast<double>(tokens) /
         prefill_operations(plan.config, tokens);
}

double load_seconds(const MachinePlan& plan, const MachineSpeed& speed) {
  return speed.disk_gbs > 0 ? gb(static_cast<double>(plan.weights.bytes())) / speed.disk_gbs : 0;
}

std::string to_text(const MachinePlan& plan, const MachineSpeed& speed) {
  std::string text;
  const auto& memory = plan.memory;
  print(text, "%-18s %-14s %12s %20s\n", ("weights of a " + plan.source).c_str(), "format", "GB",
        "GB a text token");
  for (const auto& part : plan.weights.parts)
    print(text, "  %-16s %-14s %12.3f %20.3f\n", part.name.c_str(), part.formats.c_str(),
          gb(static_cast<double>(part.bytes)), gb(static_cast<double>(part.token_bytes)));
  print(text, "  %-16s %-14s %12.3f %20.3f\n\n", "all", "",
        gb(static_cast<double>(plan.weights.bytes())),
        gb(static_cast<double>(plan.weights.token_bytes())));
  print(text, "keys and values    %s, %.0f bytes a token, %.3f GB for %zu tokens\n\n",
        kv_name(plan.kv_type), plan.kv_token_bytes(),
        gb(static_cast<double>(memory.kv_bytes(memory.context))), memory.context);

  print(text, "memory of one process, GiB\n");
  const auto row = [&](const std::string& what, std::uint64_t bytes) {
    print(text, "  %-32s %8.2f\n", what.c_str(), gib(bytes));
  };
  row("weights, mapped", memory.weights);
  row("cache, " + std::to_string(plan.sequences) + " x " + std::to_string(memory.context) +
          " tokens",
      memory.kv_blocks * memory.kv_block_bytes);
  row("buffers and cached pictures", memory.scratch);
  row("in reserve", memory.reserve);
  row("needed", memory.needed());
  row("available", memory.available);
  if (plan.fits()) {
    print(text, "fits; %.2f GiB to spare, one sequence could have %zu tokens\n",
          gib(memory.available - memory.needed()), plan.longest_context());
  } else {
    print(text, "does not fit: %.2f GiB too little; ", gib(memory.needed() - memory.available));
    if (plan.longest_context() > 0) {
      print(text, "one sequence could have %zu tokens\n", plan.longest_context());
    } else {
      print(text, "weights, buffers and reserve alone need %.2f GiB\n", gib(memory.fixed()));
    }
  }

  print(text, "\nestimates, from");
  print(text, speed.read_gbs > 0 ? " %.1f GB/s of memory" : " no known speed of memory",
        speed.read_gbs);
  if (speed.peak_gops > 0)
    print(text, ", %.0f Gop/s at level %s", speed.peak_gops,
          std::string(isa_name(speed.isa)).c_str());
  if (speed.disk_gbs > 0) print(text, ", %.2f GB/s of the disk", speed.disk_gbs);
  text += "\n";
  if (speed.read_gbs > 0)
    for (const auto context : contexts_of(plan))
      print(text, "  decode, %7zu tokens so far %10.2f tok/s   (%.3f GB a token)\n", context,
            decode_rate(plan, speed, context), gb(plan.token_bytes(context)));
  if (speed.peak_gops > 0)
    for (const auto tokens : up_to(kPrompts, memory.context + 1))
      print(text, "  prompt of %6zu tokens %16.1f tok/s   (%.1f s)\n", tokens,
            prefill_rate(plan, speed, tokens),
            static_cast<double>(tokens) / prefill_rate(plan, speed, tokens));
  if (speed.disk_gbs > 0) print(text, "  load %33.1f s\n", load_seconds(plan, speed));
  return text;
}

std::string to_json(const MachinePlan& plan, const MachineSpeed& speed) {
  const auto& memory = plan.memory;
  json::array parts, decode, prefill;
  for (const auto& part : plan.weights.parts)
    parts.push_back({{"name", part.name},
                     {"format", part.formats},
                     {"bytes", part.bytes},
                     {"bytes_per_text_token", part.token_bytes}});
  if (speed.read_gbs > 0)
    for (const auto context : contexts_of(plan))
      decode.push_back({{"context", context},
                        {"bytes_per_token", plan.token_bytes(context)},
                        {"tokens_per_second", decode_rate(plan, speed, context)}});
  if (speed.peak_gops > 0)
    for (const auto tokens : up_to(kPrompts, memory.context + 1))
      prefill.push_back(
          {{"tokens", tokens}, {"tokens_per_second", prefill_rate(plan, speed, tokens)}});
  const auto known = [](double value) { return value > 0 ? json::value(value) : json::value(); };
  return json::serialize(json::object{{"source", plan.source},
                                      {"weights",
                                       {{"bytes", plan.weights.bytes()},
                                        {"bytes_per_text_token", plan.weights.token_bytes()},
                                        {"parts", std::move(parts)}}},
                                      {"kv",
                                       {{"type", kv_name(plan.kv_type)},
                                        {"bytes_per_token", plan.kv_token_bytes()},
                                        {"context", memory.context},
                                        {"sequences", plan.sequences},
                                        {"bytes_of_a_context", memory.kv_bytes(memory.context)}}},
                                      {"memory",
                                       {{"weights_bytes", memory.weights},
                                        {"kv_bytes", memory.kv_blocks * memory.kv_block_bytes},
                                        {"scratch_bytes", memory.scratch},
                                        {"reserve_bytes", memory.reserve},
                                        {"needed_bytes", memory.needed()},
                                        {"available_bytes", memory.available},
                                        {"fits", plan.fits()},
                                        {"longest_context", plan.longest_context()}}},
                                      {"machine",
                                       {{"read_gbs", known(speed.read_gbs)},
                                        {"peak_gops", known(speed.peak_gops)},
                                        {"level", isa_name(speed.isa)},
                                        {"disk_gbs", known(speed.disk_gbs)}}},
                                      {"estimates",
                                       {{"decode", std::move(decode)},
                                        {"prefill", std::move(prefill)},
                                        {"load_seconds", known(load_seconds(plan, speed))}}}});
}

}  // namespace moesaic
