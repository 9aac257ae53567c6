#include "common/model/pack.hpp"

#include <chrono>
#include <cstdio>
#include <optional>

#include "common/base/available_memory.hpp"
#include "common/base/progress_line.hpp"
#include "common/base/read_file.hpp"
#include "common/model/fingerprint.hpp"
#include "common/model/inspect.hpp"
#include "common/model/sha256.hpp"
#include "services/all_in_one/calibration/calibration.hpp"
#include "services/all_in_one/calibration/layer_log.hpp"
#include "services/all_in_one/commands/commands.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kMaxTextBytes = 1 << 20;
constexpr std::size_t kMaxDataBytes = std::size_t{1} << 30;
/// Between two lines about chats that are encoded.
constexpr auto kTellEvery = std::chrono::seconds(10);

struct Options {
  std::string model, output, format, policy, method = "search", calibration;
  std::string verify;
  unsigned threads = 0;
};

Result<void> verify(const std::string& dir, unsigned threads) {
  MOESAIC_TRY(const auto config, load_model_config(dir));
  MOESAIC_TRY(const auto pack, Pack::open(dir, config));
  ThreadPool pool(threads);
  ProgressLine line("verifying", pack->bytes());
  MOESAIC_CHECK(pack->verify(
      pool, [&line](std::uint64_t bytes, const std::string& what) { line(bytes, what); }));
  std::printf("%s: every tensor is as it was written\n", dir.c_str());
  return {};
}

Result<PackPolicy> policy_of(const Options& options, const ModelConfig& config) {
  if (!options.policy.empty()) return load_policy(options.policy, config.layers);
  return PackPolicy::uniform(*parse_format(options.format));
}

/// Names what statistics come from: the file, and the pictures it points to.
Result<std::string> name_of_data(const std::string& file, std::span<const ChatItem> items) {
  MOESAIC_TRY(const auto text, read_file(file, kMaxDataBytes));
  Sha256 hash;
  hash.add(text.data(), text.size());
  for (const auto& item : items)
    for (const auto& visual : item.visuals)
      for (const auto& frame : visual.frames) {
        if (frame.file.empty()) continue;
        MOESAIC_TRY(const auto bytes, read_file(frame.file, kMaxDataBytes));
        hash.add(bytes.data(), bytes.size());
      }
  return hash.hex();
}

/// Reads the chats of the file, and says what they will take.
Result<std::unique_ptr<Calibration>> calibrate(const Options& options, PackOptions& pack) {
  MOESAIC_TRY(const auto items, read_chat_items(options.calibration));
  MOESAIC_TRY(pack.calibration, name_of_data(options.calibration, items));
  ModelOptions model;
  model.model = options.model;
  model.threads = options.threads;
  CalibrationSettings settings;
  const auto key = pack.source + pack.calibration;
  settings.kept.emplace(std::filesystem::path(options.output) / "calibration_rows",
                        sha256_hex(key));
  const auto available = available_memory();
  settings.encoded = [&items, told = std::chrono::steady_clock::now()](std::size_t done,
                                                                       std::size_t tokens) mutable {
    const auto now = std::chrono::steady_clock::now();
    if (now - told < kTellEvery) return;
    told = now;
    std::fprintf(stderr, "%zu of %zu chats encoded, %zu tokens\n", done, items.size(), tokens);
  };
  MOESAIC_TRY(auto calibration, Calibration::start(model, items, std::move(settings)));
  std::fprintf(stderr, "%zu chats, %zu tokens; memory: %s; %.2f GB are available\n", items.size(),
               calibration->rows(), to_text(calibration->memory()).c_str(),
               static_cast<double>(available) * 1e-9);
  return calibration;
}

Result<void> run(const Options& options) {
  if (!options.verify.empty()) return verify(options.verify, options.threads);
  if (options.output.empty()) return fail(Errc::kInvalidArgument, "--output is missing");
  if (is_pack(options.model))
    return fail(Errc::kInvalidArgument, options.model + ": is a pack already; give its checkpoint");
  // Before hours of calibration, not after.
  if (is_pack(options.output))
    return fail(Errc::kInvalidArgument, options.output + ": holds a finished pack already");
  MOESAIC_TRY(const auto text,
              read_file(std::filesystem::path(options.model) / "config.json", kMaxTextBytes));
  MOESAIC_TRY(const auto config, load_model_config(options.model));
  PackOptions pack;
  MOESAIC_TRY(pack.policy, policy_of(options, config));
  if (options.calibration.empty() != (options.method != "calibrated"))
    return fail(Errc::kInvalidArgument, "--method calibrated and --calibration FILE go together");
  pack.method = options.method == "absmax"   ? QuantMethod::kAbsmax
                : options.method == "search" ? QuantMethod::kSearch
                                             : QuantMethod::kCalibrated;
  MOESAIC_TRY(pack.source, model_fingerprint(options.model, "auto"));
  pack.copy_from = options.model;
  MOESAIC_TRY(const auto source, open_checkpoint(options.model, config));
  std::unique_ptr<Calibration> calibration;
  std::optional<LayerLog> log;
  if (pack.method == QuantMethod::kCalibrated) {
    MOESAIC_TRY(calibration, calibrate(options, pack));
    pack.statistics = [&](const WeightId& id) { return calibration->for_weight(id); };
    log.emplace(config);
    pack.layer_done = [&](std::uint32_t layer) {
      std::fprintf(stderr, "%s\n", log->done(layer).c_str());
    };
  }
  ThreadPool pool(options.threads);
  ProgressLine line("packing", matrix_bytes(config, pack.policy));
  MOESAIC_CHECK(
      write_pack(config, text, *source, pack, options.output, pool,
                 [&line](std::uint64_t bytes, const std::string& what) { line(bytes, what); }));
  if (calibration) calibration->forget();
  return {};
}

void add(CLI::App& app, int& status, const char* name, const char* help, const char* format) {
  auto* command = app.add_subcommand(name, help);
  const auto options = std::make_shared<Options>();
  options->format = format;
  command->add_option("--model", options->model, "checkpoint directory (default: the demo model)");
  command->add_option("--output", options->output,
                      "directory to write; what was interrupted goes on");
  auto* all = command
                  ->add_option("--format", options->format,
                               "of all matrices of the text side; those that the checkpoint has "
                               "quantised stay as they are")
                  ->capture_default_str()
                  ->check(CLI::IsMember(pack_format_names()));
  command->add_option("--policy", options->policy, "YAML: a format for each component")
      ->check(CLI::ExistingFile)
      ->excludes(all);
  command->add_option("--method", options->method, "how codes are chosen")
      ->capture_default_str()
      ->check(CLI::IsMember({"absmax", "search", "calibrated"}));
  command->add_option("--calibration", options->calibration,
                      "JSONL file of chats with answers, for --method calibrated");
  command->add_option("--verify", options->verify, "only check a pack's tensors");
  command->add_option("--threads", options->threads, "threads (default: one per CPU)")
      ->check(CLI::Range(1, 1024));
  command->footer(std::string("Example: moesaic ") + name +
                  " --model /models/ernie --output /models/ernie-" + format);
  command->callback([options, &status] {
    if (options->model.empty()) options->model = demo_model_dir();
    if (const auto done = run(*options); !done) status = report(done.error());
  });
}

}  // namespace

void add_pack(CLI::App& app, int& status) {
  add(app, status, "pack", "bring a checkpoint into kernel layout, a file per owner", "bf16");
}

void add_quantize(CLI::App& app, int& status) {
  add(app, status, "quantize", "pack a checkpoint with quantised weights", "w4");
}

}  // namespace moesaic
