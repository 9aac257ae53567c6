#include <cstdio>

#include "common/kernels/ceilings.hpp"
#include "services/all_in_one/bench/cold_load.hpp"
#include "services/all_in_one/commands/commands.hpp"
#include "services/all_in_one/commands/plan_placement.hpp"
#include "services/all_in_one/machine_plan.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kReadBytes = std::size_t{512} << 20;
constexpr std::uint64_t kDiskBytes = std::uint64_t{1} << 30;

struct Options {
  PlacementPlanOptions placement;
  MachinePlanOptions machine;
  MachineSpeed given;
  double memory_gib = 0;
};

/// What was not given is measured, in about two seconds.
MachineSpeed speed_of(const Options& options, const MachinePlan& plan) {
  auto speed = options.given;
  speed.isa = active_isa();
  const auto threads = options.placement.model.threads;
  ThreadPool pool(threads > 0 ? threads : usable_cpus());
  if (speed.read_gbs == 0) speed.read_gbs = measure_read_gbs(pool, kReadBytes);
  if (speed.peak_gops == 0) speed.peak_gops = measure_peak_gops(speed.isa, plan.compute, pool);
  if (speed.disk_gbs == 0 && plan.source == "pack")
    speed.disk_gbs = direct_read_rate(options.machine.model, kDiskBytes) * 1e-9;
  return speed;
}

Result<void> plan_for_machine(Options& options) {
  const auto& model = options.placement.model;
  options.machine.model = model.synthetic.empty() ? model.model : model.synthetic;
  options.machine.memory_bytes = static_cast<std::uint64_t>(options.memory_gib * (1U << 30));
  MOESAIC_TRY(const auto plan, plan_machine(options.machine));
  const auto speed = speed_of(options, plan);
  if (options.placement.as_json) {
    std::printf("%s\n", to_json(plan, speed).c_str());
  } else {
    std::fputs(to_text(plan, speed).c_str(), stdout);
  }
  if (plan.fits()) return {};
  return fail(Errc::kOverloaded, "does not fit: " + std::to_string(plan.memory.needed() >> 20) +
                                     " MiB needed, " + std::to_string(plan.memory.available >> 20) +
                                     " MiB available");
}

void add_machine_options(CLI::App& command, Options& options) {
  auto& machine = options.machine;
  const char* group = "One machine";
  auto* format = command
                     .add_option("--format", machine.format,
                                 "of a pack to be made (a checkpoint alone: bf16; a config.json "
                                 "alone: w4)")
                     ->check(CLI::IsMember({"bf16", "w8", "w4", "ccq2"}))
                     ->group(group);
  command.add_option("--policy", machine.policy, "YAML: a format for each component")
      ->check(CLI::ExistingFile)
      ->excludes(format)
      ->group(group);
  command.add_option("--kv", machine.kv, "type of the cache")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "f32", "bf16", "int8"}))
      ->group(group);
  command.add_option("--context", machine.context, "tokens of a sequence (default: the model's)")
      ->check(CLI::Range(1, 1 << 24))
      ->group(group);
  command.add_option("--sequences", machine.sequences, "of that context at the same time")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096))
      ->group(group);
  command
      .add_option("--memory", options.memory_gib, "GiB to be had (default: what this machine has)")
      ->check(CLI::Range(0.001, 1e6))
      ->group(group);
  command
      .add_option("--peak-gops", options.given.peak_gops,
                  "1e9 operations a second, for prompts; measured here if not given")
      ->check(CLI::Range(0.1, 1e7))
      ->group(group);
  command
      .add_option("--disk-gbs", options.given.disk_gbs,
                  "1e9 bytes a second; of a pack's own disk if not given")
      ->check(CLI::Range(0.001, 1e4))
      ->group(group);
}

void add_placement_options(CLI::App& command, PlacementPlanOptions& options) {
  const char* group = "Placement on shards";
  command
      .add_option("--placement", options.placement,
                  "placement file; without it: even ranges over the shards declared")
      ->group(group);
  command
      .add_option("--shard", options.shards,
                  "a shard as it would register, name=a,node=a,memory_gib=16; again for each; "
                  "without any: as few as the file can do with")
      ->group(group);
  command.add_option("--carrier", options.carrier, "shm (12 us a round trip) or tcp (90)")
      ->capture_default_str()
      ->check(CLI::IsMember({"shm", "tcp"}))
      ->group(group);
  command.add_option("--rtt-us", options.rtt_us, "a round trip, instead of the carrier's")
      ->check(CLI::Range(0.1, 1e6))
      ->group(group);
}

}  // namespace

void add_plan(CLI::App& app, int& status) {
  auto* command = app.add_subcommand(
      "plan",
      "what a model needs and how fast it would be, before anything is loaded: on one machine, or "
      "placed on shards");
  const auto options = std::make_shared<Options>();
  auto& placement = options->placement;
  add_model_options(*command, placement.model);
  command
      ->add_option("--read-gbs,--gbps", options->given.read_gbs,
                   "memory bandwidth, 1e9 bytes a second; measured here if not given")
      ->check(CLI::Range(0.1, 1e5));
  command->add_flag("--json", placement.as_json, "print JSON");
  add_machine_options(*command, *options);
  add_placement_options(*command, placement);
  command->footer(
      "Examples: moesaic plan --model configs/models/ernie-4.5-vl-28b-a3b.json --format w4\n"
      "moesaic plan --model configs/models/ernie-4.5-vl-28b-a3b.json --placement "
      "configs/placements/two_nodes.yaml --gbps 40\n"
      "Exit status 3: the model or the placement is bad; 4: the model does not fit.");
  command->callback([options, &status] {
    auto& placed = options->placement;
    default_to_demo(placed.model);
    // A configuration alone has weights by the formula.
    if (std::filesystem::is_regular_file(placed.model.model))
      placed.model.synthetic = std::exchange(placed.model.model, {});
    placed.gbps = options->given.read_gbs;
    const bool shards = !placed.placement.empty() || !placed.shards.empty();
    const auto done = shards ? plan_placement(placed) : plan_for_machine(*options);
    if (done) return;
    const auto exit = report(done.error());
    status = shards ? kExitBadInput : exit;
  });
}

}  // namespace moesaic
