#include <boost/json.hpp>
#include <cstdio>

#include "actors/vision_encoder/visual_pipeline.hpp"
#include "common/base/read_file.hpp"
#include "common/chat/chat_format.hpp"
#include "common/tokenizer/stream_decoder.hpp"
#include "services/all_in_one/case_file.hpp"
#include "services/all_in_one/commands/commands.hpp"
#include "services/all_in_one/experts.hpp"
#include "services/all_in_one/run_request.hpp"

namespace moesaic {
namespace {

struct Options {
  ModelOptions model;
  std::string input, prompt;
  std::vector<std::string> images;
  std::string experts = "local";
  std::uint32_t max_tokens = 128;
  std::size_t chunk = 512;
  bool ignore_eos = false, as_json = false, thinking = false;
  SamplingParams sampling;
};

/// Ids and features as a file gives them.
Result<GenerateRequest> request_from_case(const Options& options, const ModelConfig& config,
                                          ModelOptions& model_options, LoadedModel& model) {
  MOESAIC_TRY(const auto input, read_case(options.input, config));
  MOESAIC_TRY(const auto layout, layout_prompt(config, input.ids, input.images, input.videos));
  model_options.vision = !layout.spans.empty();
  MOESAIC_TRY(model, load_model(model_options));
  GenerateRequest request;
  request.prompt = input.ids;
  if (model.vision) {
    VisionTower tower(config, model.vision, model.vision_compute);
    MOESAIC_TRY(request.visuals,
                encode_visuals(input, config, layout, tower, *model.pool, nullptr));
  }
  return request;
}

/// A single user turn: images first, then the text.
Result<GenerateRequest> request_from_chat(const Options& options, const ModelConfig& config,
                                          const Tokenizer& tokenizer, ModelOptions& model_options,
                                          LoadedModel& model) {
  ChatMessage message{"user", {}, std::nullopt};
  for (std::size_t i = 0; i < options.images.size(); ++i)
    message.parts.push_back({ContentPart::Kind::kImage, {}});
  message.parts.push_back({ContentPart::Kind::kText, options.prompt});
  MOESAIC_TRY(const auto rendered, render_chat(tokenizer, guess_chat_style(options.model.model),
                                               std::span(&message, 1), {options.thinking, true}));
  model_options.vision = !options.images.empty();
  MOESAIC_TRY(model, load_model(model_options));
  GenerateRequest request;
  if (model.vision) {
    VisualPipelineParts parts{config, model.vision, model.vision_compute, model.pool, {}, {}, 0};
    MOESAIC_TRY(parts.preprocess, PreprocessConfig::load(options.model.model, default_font()));
    VisualPipeline pipeline(parts);
    for (const auto& file : options.images) {
      MOESAIC_TRY(auto bytes, read_file(file, parts.limits.max_bytes));
      auto features =
          pipeline.encode({false, 0, {std::make_shared<const std::string>(std::move(bytes))}});
      if (!features) return fail(file, features.error());
      request.visuals.push_back(*features);
    }
  }
  std::size_t next = 0;
  for (std::size_t i = 0; i < rendered.ids.size(); ++i) {
    const bool placeholder =
        next < rendered.placeholder_positions.size() && rendered.placeholder_positions[next] == i;
    request.prompt.insert(request.prompt.end(), placeholder ? request.visuals[next++]->rows : 1,
                          rendered.ids[i]);
  }
  return request;
}

Result<void> run(const Options& options) {
  MOESAIC_TRY(const auto shards, parse_experts(options.experts));
  auto model_options = options.model;
  model_options.shards = std::max<std::size_t>(shards, 1);
  const auto& where =
      model_options.synthetic.empty() ? model_options.model : model_options.synthetic;
  MOESAIC_TRY(const auto config, load_model_config(where));
  LoadedModel model;
  GenerateRequest request;
  std::shared_ptr<const Tokenizer> tokenizer;
  EngineSettings settings;
  settings.limits.prefill_chunk = settings.limits.step_rows = options.chunk;
  if (options.input.empty()) {
    if (options.prompt.empty())
      return fail(Errc::kInvalidArgument, "generate needs --input FILE or --prompt TEXT");
    MOESAIC_TRY(tokenizer, Tokenizer::load(model_options.model));
    MOESAIC_TRY(request, request_from_chat(options, config, *tokenizer, model_options, model));
    settings.drawable_ids = static_cast<std::uint32_t>(tokenizer->size());
  } else {
    MOESAIC_TRY(request, request_from_case(options, config, model_options, model));
  }
  request.max_tokens = options.max_tokens;
  request.sampling = options.sampling;
  if (!options.ignore_eos) {
    request.stop_ids.push_back(config.eos_id);
    if (const auto id = tokenizer ? tokenizer->special_id("<|end_of_sentence|>") : std::nullopt)
      request.stop_ids.push_back(*id);
  }
  OnToken on_token;
  std::unique_ptr<StreamDecoder> decoder;
  if (tokenizer && !options.as_json) {
    decoder = std::make_unique<StreamDecoder>(tokenizer, options.thinking);
    on_token = [&](std::int32_t id) {
      std::fputs(decoder->push(id).c_str(), stdout);
      std::fflush(stdout);
    };
  }
  MOESAIC_TRY(const auto ids, run_request(model, shards, std::move(request), settings, on_token));
  if (decoder) {
    std::printf("%s\n", decoder->finish().c_str());
  } else {
    std::printf("%s\n", boost::json::serialize(
                            boost::json::value{{"token_ids", boost::json::value_from(ids)}})
                            .c_str());
  }
  return {};
}

}  // namespace

void add_generate(CLI::App& app, int& status) {
  auto* command = app.add_subcommand("generate", "continue one prompt and print the answer");
  const auto options = std::make_shared<Options>();
  add_model_options(*command, options->model);
  auto* input =
      command->add_option("--input", options->input,
                          "safetensors file: input_ids, and pixel_values with image_grid_thw, ...");
  command->add_option("--prompt", options->prompt, "what to ask")->excludes(input);
  command
      ->add_option("--image", options->images,
                   "PNG, JPEG or WebP file, shown before the prompt; may be repeated")
      ->excludes(input);
  command->add_flag("--thinking", options->thinking, "let the model think first");
  command->add_option("--max-tokens", options->max_tokens, "longest answer")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  command
      ->add_option("--temperature", options->sampling.temperature, "0: always the likeliest token")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 100.0));
  command
      ->add_option("--top-p", options->sampling.top_p,
                   "draw among the likeliest tokens of this total probability")
      ->check(CLI::Range(1e-6, 1.0));
  command->add_option("--top-k", options->sampling.top_k, "draw among the K likeliest tokens");
  command->add_option("--seed", options->sampling.seed, "of the draws")->capture_default_str();
  command->add_flag("--ignore-eos", options->ignore_eos, "go on after an end token");
  command->add_option("--prefill-chunk", options->chunk, "prompt tokens per step")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  add_experts_option(*command, options->experts);
  command->add_flag("--json", options->as_json, R"(print {"token_ids": [...]})");
  command->footer(
      "Example: moesaic generate --image configs/models/ernie-vl-demo/examples/digit.png --prompt "
      "\"Which digit is this?\"");
  command->callback([options, &status] {
    default_to_demo(options->model);
    if (const auto done = run(*options); !done) status = report(done.error());
  });
}

}  // namespace moesaic
