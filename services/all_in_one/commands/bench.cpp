#include "services/all_in_one/bench/bench.hpp"

#include <unistd.h>

#include <boost/json.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>

#include "services/all_in_one/bench/cold_load.hpp"
#include "services/all_in_one/commands/commands.hpp"

namespace moesaic {
namespace {

namespace json = boost::json;

/// Of the model's files read directly to find out what the disk can do.
constexpr std::uint64_t kDiskSample = std::uint64_t{4} << 30;

struct Options {
  ModelOptions model;
  BenchOptions bench;
  std::string kv = "auto";
  bool as_json = false, no_vision = false, warm = false;
};

json::value to_json(const std::optional<double>& value) {
  return value ? json::value(*value) : json::value(nullptr);
}

json::value to_json(const BenchReport& report) {
  json::array results, features;
  for (const auto& r : report.results)
    results.push_back({{"test", r.test},
                       {"batch", r.batch},
                       {"context", r.context},
                       {"tokens_per_second", r.tokens_per_second},
                       {"seconds_per_step", r.seconds_per_step},
                       {"bytes_per_step", r.bytes_per_step},
                       {"gops_per_step", r.gops_per_step},
                       {"read_share", to_json(r.read_share)},
                       {"peak_share", to_json(r.peak_share)},
                       {"disk_share", to_json(r.disk_share)}});
  for (const auto& name : report.features) features.emplace_back(name);
  return {{"machine",
           {{"cpu", report.cpu},
            {"isa", report.isa},
            {"levels", std::move(features)},
            {"threads", report.threads},
            {"read_gbs", report.read_gbs},
            {"peak_gops", report.peak_gops},
            {"vision_peak_gops", report.vision_peak_gops},
            {"disk_gbs", report.disk_gbs}}},
          {"model",
           {{"name", report.model},
            {"format", report.format},
            {"layers", report.layers},
            {"parameters", report.parameters},
            {"bytes", report.model_bytes}}},
          {"peak_memory_bytes", report.peak_memory},
          {"results", std::move(results)}};
}

std::string percent(const std::optional<double>& share) {
  if (!share) return "-";
  char text[16];
  std::snprintf(text, sizeof text, "%.1f %%", *share * 100);
  return text;
}

void print_table(const BenchReport& report) {
  std::printf("%s, level %s, %u threads; plain read %.1f GB/s, multiply-add peak %.0f Gop/s",
              report.cpu.c_str(), report.isa.c_str(), report.threads, report.read_gbs,
              report.peak_gops);
  if (report.vision_peak_gops > 0) std::printf(" (vision %.0f)", report.vision_peak_gops);
  if (report.disk_gbs > 0) std::printf(", disk %.2f GB/s", report.disk_gbs);
  std::printf("\n%s, %u layers, %.1f GB in memory; most resident %.2f GiB\n\n",
              report.format.c_str(), report.layers, report.model_bytes * 1e-9,
              report.peak_memory / (1 << 30));
  std::printf(
      "| test    | batch | context | tokens/s | s/step | GB read | of ceiling | Gop    | of peak "
      "|\n");
  std::printf(
      "| ------- | ----: | ------: | -------: | -----: | ------: | ---------: | -----: | ------: "
      "|\n");
  for (const auto& r : report.results)
    std::printf("| %-7s | %5zu | %7zu | %8.2f | %6.3f | %7.3f | %10s | %6.0f | %7s |\n",
                r.test.c_str(), r.batch, r.context, r.tokens_per_second, r.seconds_per_step,
                r.bytes_per_step * 1e-9,
                percent(r.disk_share ? r.disk_share : r.read_share).c_str(), r.gops_per_step,
                percent(r.peak_share).c_str());
}

/// The layout of llama-bench, so that people can compare by eye.
void print_llama_bench(const BenchReport& report) {
  std::printf("\n| model | size | params | backend | threads | test | t/s |\n");
  std::printf("| --- | ---: | ---: | --- | ---: | ---: | ---: |\n");
  for (const auto& r : report.results) {
    std::string test;
    if (r.test == "prefill") test = "pp" + std::to_string(r.context);
    if (r.test == "decode") {
      test = "tg" + std::to_string(r.batch);
      if (r.context > 0) test += " @ d" + std::to_string(r.context);
    }
    if (test.empty()) continue;
    std::printf("| %s %s | %.2f GiB | %.2f B | %s | %u | %s | %.2f |\n", report.model.c_str(),
                report.format.c_str(), report.model_bytes / (1 << 30), report.parameters * 1e-9,
                report.isa.c_str(), report.threads, test.c_str(), r.tokens_per_second);
  }
}

std::optional<Compute> kv_type(const std::string& name) {
  if (name == "f32") return Compute::kF32;
  if (name == "bf16") return Compute::kBf16;
  if (name == "int8") return Compute::kInt;
  return std::nullopt;
}

Result<void> run(Options options) {
  const bool synthetic = !options.model.synthetic.empty();
  const auto& source = synthetic ? options.model.synthetic : options.model.model;
  MOESAIC_TRY(const auto config, load_model_config(source));
  if (options.model.layers == 0 && synthetic) options.model.layers = layers_that_fit(config);
  options.model.vision = !options.no_vision;
  options.bench.kv = kv_type(options.kv);
  BenchLoad load;
  if (!synthetic) {
    load.bytes = static_cast<double>(file_bytes(source));
    const auto vision = std::filesystem::path(source) / "vision.pack";
    if (options.no_vision && std::filesystem::exists(vision))
      load.bytes -= static_cast<double>(std::filesystem::file_size(vision));
    if (!options.warm) {
      drop_from_cache(source);
      load.disk_rate = direct_read_rate(source, kDiskSample);
    }
  }
  const auto start = std::chrono::steady_clock::now();
  MOESAIC_TRY(const auto model, load_model(options.model));
  load.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (model.pack) model.pack->wait_warm();
  const bool show = ::isatty(STDERR_FILENO) != 0;
  MOESAIC_TRY(auto report, run_bench(model, load, options.bench, [show](const std::string& what) {
                if (show) std::fprintf(stderr, "\r\033[K%s", what.c_str());
              }));
  if (show) std::fprintf(stderr, "\r\033[K");
  report.model = std::filesystem::path(source + "/.").lexically_normal().parent_path().filename();
  if (options.as_json) {
    std::printf("%s\n", json::serialize(to_json(report)).c_str());
  } else {
    print_table(report);
    print_llama_bench(report);
  }
  return {};
}

}  // namespace

void add_bench(CLI::App& app, int& status) {
  auto* command = app.add_subcommand(
      "bench", "measure decode, prefill, vision and loading as shares of this machine's ceilings");
  const auto options = std::make_shared<Options>();
  add_model_options(*command, options->model);
  command->add_option(
      "--layers", options->model.layers,
      "leading layers to measure (default: all, or as many synthetic ones as fit in memory)");
  const auto list = [&](const char* name, std::vector<std::size_t>& values, const char* help) {
    command->add_option(name, values, help)
        ->delimiter(',')
        ->capture_default_str()
        ->check(CLI::Range(1, 1 << 20));
  };
  list("--batch", options->bench.batches, "sequences in a decode step, at the first context");
  list("--context", options->bench.contexts, "tokens in the cache before a decode step");
  list("--prefill", options->bench.prefills, "prompt lengths");
  list("--image", options->bench.images, "sides of square images, pixels");
  const auto number = [&](const char* name, std::size_t& value, const char* help) {
    command->add_option(name, value, help)->capture_default_str()->check(CLI::Range(0, 1 << 20));
  };
  number("--long-context", options->bench.long_context,
         "a context that decodes its last 32 tokens; 0: none");
  number("--long-prefill", options->bench.long_prefill, "a prompt that is timed once; 0: none");
  command->add_option("--prefill-chunk", options->bench.prefill_chunk, "prompt tokens of a step")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 16));
  command->add_option("--passes", options->bench.passes, "passes of each decode test")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  command->add_option("--kv", options->kv, "type of the cache")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "f32", "bf16", "int8"}));
  command->add_flag("--no-vision", options->no_vision, "leave the vision tower out");
  command->add_flag("--warm", options->warm,
                    "leave the model's files in the page cache, and the disk alone");
  command->add_flag("--json", options->as_json, "print JSON");
  command->footer(
      "Example: moesaic bench --synthetic configs/models/ernie-4.5-vl-28b-a3b.json --batch 1,8");
  command->callback([options, &status] {
    default_to_demo(options->model);
    if (const auto done = run(*options); !done) status = report(done.error());
  });
}

}  // namespace moesaic
