#include <boost/json.hpp>

#include "common/base/progress_line.hpp"
#include "common/base/read_file.hpp"
#include "common/base/write_file.hpp"
#include "common/model/inspect.hpp"
#include "common/model/pack.hpp"
#include "common/model/synthetic_checkpoint.hpp"
#include "services/all_in_one/commands/commands.hpp"

namespace moesaic {
namespace {

constexpr std::size_t kMaxConfigBytes = 1 << 20;

struct Options {
  std::string config, output;
  double shard_gb = 5;
  std::string format = "checkpoint", policy;
  bool tokenizer = false;
  unsigned threads = 0;
};

/// The configuration with the ids of special tokens that the demo model's tokenizer has.
Result<std::string> with_demo_tokens(std::string_view text, const std::string& file) try {
  MOESAIC_TRY(const auto demo, read_file(demo_model_dir() / "config.json", kMaxConfigBytes));
  const auto from = boost::json::parse(demo).as_object();
  auto to = boost::json::parse(text).as_object();
  for (const auto* key :
       {"im_patch_id", "image_start_token_id", "image_end_token_id", "video_start_token_id",
        "video_end_token_id", "max_text_id", "bos_token_id", "eos_token_id", "pad_token_id"})
    if (const auto* id = from.if_contains(key)) to[key] = *id;
  return boost::json::serialize(to);
} catch (const std::exception& e) {
  return fail(Errc::kCorrupt, file + ": " + e.what());
}

/// The demo model takes small pictures only; a model of full size takes them as published.
Result<void> allow_large_pictures(const std::filesystem::path& model) try {
  const auto file = model / "preprocessor_config.json";
  MOESAIC_TRY(const auto text, read_file(file, kMaxConfigBytes));
  auto config = boost::json::parse(text).as_object();
  for (const auto* key : {"min_pixels", "max_pixels", "image_min_pixels", "image_max_pixels",
                          "video_min_pixels", "video_max_pixels"})
    config.erase(key);
  return write_file(file, boost::json::serialize(config) + "\n");
} catch (const std::exception& e) {
  return fail(Errc::kCorrupt, model.string() + ": preprocessor_config.json: " + e.what());
}

/// A pack of synthetic weights that can be served: with the demo model's tokenizer and chat beside
/// them.
Result<void> write_synthetic_pack(const Options& options, std::string_view given) {
  MOESAIC_TRY(const auto text, with_demo_tokens(given, options.config));
  MOESAIC_TRY(const auto config, parse_model_config(text, options.config));
  PackOptions pack;
  if (options.policy.empty()) {
    pack.policy = PackPolicy::uniform(*parse_format(options.format));
  } else {
    MOESAIC_TRY(pack.policy, load_policy(options.policy, config.layers));
  }
  pack.method = QuantMethod::kAbsmax;
  pack.source = "synthetic";
  pack.copy_from = demo_model_dir();
  ThreadPool pool(options.threads);
  // Each worker computes its own expert.
  const auto source = synthetic_weights(config, 1);
  ProgressLine line("writing");
  MOESAIC_CHECK(
      write_pack(config, text, *source, pack, options.output, pool,
                 [&line](std::uint64_t bytes, const std::string& what) { line(bytes, what); }));
  return allow_large_pictures(options.output);
}

Result<void> run(const Options& options) {
  MOESAIC_TRY(auto text, read_file(options.config, kMaxConfigBytes));
  if (options.format != "checkpoint" || !options.policy.empty())
    return write_synthetic_pack(options, text);
  if (options.tokenizer) {
    MOESAIC_TRY(text, with_demo_tokens(text, options.config));
  }
  MOESAIC_TRY(const auto config, parse_model_config(text, options.config));
  ProgressLine line("writing", inspect(config).total.bytes);
  MOESAIC_CHECK(write_synthetic_checkpoint(
      config, text, options.output, static_cast<std::uint64_t>(options.shard_gb * 1e9),
      options.threads > 0 ? options.threads : usable_cpus(),
      [&line](std::uint64_t bytes, const std::string& what) { line(bytes, what); }));
  if (!options.tokenizer) return {};
  MOESAIC_CHECK(copy_companions(demo_model_dir(), options.output));
  return allow_large_pictures(options.output);
}

}  // namespace

void add_synth(CLI::App& app, int& status) {
  auto* command = app.add_subcommand(
      "synth",
      "write a checkpoint or pack of any configuration with weights from the fixed formula");
  const auto options = std::make_shared<Options>();
  auto formats = pack_format_names();
  formats.insert(formats.begin(), "checkpoint");
  command->add_option("--model-config", options->config, "config.json of the model")
      ->required()
      ->check(CLI::ExistingFile);
  command->add_option("--output", options->output, "directory to write")->required();
  auto* format = command
                     ->add_option("--format", options->format,
                                  "checkpoint (bf16 safetensors), or a pack of that format")
                     ->capture_default_str()
                     ->check(CLI::IsMember(formats));
  command->add_option("--policy", options->policy, "YAML: a pack, a format for each component")
      ->check(CLI::ExistingFile)
      ->excludes(format);
  command->add_flag("--tokenizer", options->tokenizer,
                    "a checkpoint, too, gets the demo model's tokenizer, special tokens and chat "
                    "format, as packs do");
  command->add_option("--shard-gb", options->shard_gb, "size of a file, 1e9 bytes")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 1000.0));
  command->add_option("--threads", options->threads, "threads (default: one per CPU)")
      ->check(CLI::Range(1, 1024));
  command->footer(
      "Example: moesaic synth --model-config configs/models/ernie-4.5-vl-28b-a3b.json --output "
      "/data/synthetic");
  command->callback([options, &status] {
    if (const auto done = run(*options); !done) status = report(done.error());
  });
}

}  // namespace moesaic
