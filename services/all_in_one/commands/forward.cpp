#include "common/engine/sequence.hpp"
#include "common/kv_cache/kv_cache.hpp"
#include "common/tensor/safetensors.hpp"
#include "services/all_in_one/case_file.hpp"
#include "services/all_in_one/commands/commands.hpp"
#include "services/all_in_one/experts.hpp"

namespace moesaic {
namespace {

struct Options {
  ModelOptions model;
  std::string input, output;
  std::string experts = "local";
  bool layers = false;
  std::size_t chunk = 0;
};

/// Token types and positions, under the golden names.
void add_layout(const ModelConfig& config, const CaseFile& input, const PromptLayout& layout,
                std::map<std::string, Tensor>& out) {
  const auto tokens = static_cast<std::int64_t>(input.ids.size());
  Tensor types(DType::kI32, {tokens});
  Tensor routed(DType::kI32, {tokens});
  Tensor positions(DType::kI32, {3, tokens});
  Tensor delta(DType::kI32, {1});
  for (const auto& span : layout.spans)
    for (std::size_t i = 0; i < span.rows; ++i)
      types.as<std::int32_t>()[span.first + i] = span.video ? 2 : 1;
  for (std::size_t i = 0; i < input.ids.size(); ++i) {
    const auto type = types.as<std::int32_t>()[i];
    const bool video_delimiter =
        input.ids[i] == config.video_start_id || input.ids[i] == config.video_end_id;
    routed.as<std::int32_t>()[i] = layout.modality[i] == Modality::kText ? 0
                                   : type != 0                           ? type
                                   : video_delimiter                     ? 2
                                                                         : 1;
    for (std::size_t axis = 0; axis < 3; ++axis)
      positions.as<std::int32_t>()[axis * input.ids.size() + i] = layout.positions[i][axis];
  }
  delta.as<std::int32_t>()[0] = layout.delta;
  out.emplace("mm_token_type_ids", std::move(types));
  out.emplace("moe_mm_token_type_ids", std::move(routed));
  out.emplace("position_ids", std::move(positions));
  out.emplace("rope_delta", std::move(delta));
}

/// Prefills the prompt in chunks through the decoder that also serves; the collector gets what
/// passes.
Result<void> prefill(const LoadedModel& model, ExpertBackend& experts, const CaseFile& input,
                     const PromptLayout& layout, const std::vector<VisualFeaturesPtr>& visuals,
                     std::size_t chunk, TapSink& taps) {
  auto request = std::make_shared<GenerateRequest>();
  request->prompt = input.ids;
  request->visuals = visuals;
  Sequence sequence;
  sequence.request = request;
  sequence.layout = layout;
  sequence.tokens = input.ids;
  PagedKvCache kv(DecoderStep::attention_shape(model.config, model.compute), model.config.layers,
                  kv_blocks_for(input.ids.size()));
  while (const auto block = kv.allocate()) sequence.blocks.push_back(*block);
  DecoderStep step(model.config, model.decoder, model.compute, kv, experts, *model.pool);
  step.set_taps(&taps);
  StepBatch batch;
  for (std::size_t first = 0; first < input.ids.size(); first += chunk) {
    const auto rows = std::min(chunk, input.ids.size() - first);
    batch.clear();
    append_rows(sequence, first, rows, batch);
    for (std::uint32_t i = 0; i < rows; ++i) batch.logit_rows.push_back(i);
    if (auto done = step.run(batch); !done) return tl::make_unexpected(done.error());
  }
  return {};
}

Result<void> run(const Options& options) {
  MOESAIC_TRY(const auto shards, parse_experts(options.experts));
  auto model_options = options.model;
  model_options.shards = std::max<std::size_t>(shards, 1);
  const auto& where =
      model_options.synthetic.empty() ? model_options.model : model_options.synthetic;
  MOESAIC_TRY(const auto config, load_model_config(where));
  MOESAIC_TRY(const auto input, read_case(options.input, config));
  MOESAIC_TRY(const auto layout, layout_prompt(config, input.ids, input.images, input.videos));
  model_options.vision = !layout.spans.empty();
  MOESAIC_TRY(const auto model, load_model(model_options));

  MOESAIC_TRY(const auto wiring, wire_experts(model, shards > 0));

  TensorCollector collector(options.layers);
  std::vector<VisualFeaturesPtr> visuals;
  if (model.vision) {
    VisionTower tower(model.config, model.vision, model.vision_compute);
    MOESAIC_TRY(visuals,
                encode_visuals(input, model.config, layout, tower, *model.pool, &collector));
  }
  const auto chunk = options.chunk > 0 ? options.chunk : input.ids.size();
  MOESAIC_CHECK(prefill(model, *wiring.backend, input, layout, visuals, chunk, collector));
  auto tensors = collector.take();
  add_layout(model.config, input, layout, tensors);
  return write_safetensors(options.output, tensors);
}

}  // namespace

void add_forward(CLI::App& app, int& status) {
  auto* command = app.add_subcommand(
      "forward", "run one prompt through the network and write every intermediate");
  const auto options = std::make_shared<Options>();
  add_model_options(*command, options->model);
  command
      ->add_option("--input", options->input,
                   "safetensors file: input_ids, and pixel_values with image_grid_thw, ...")
      ->required();
  command->add_option("--output", options->output, "safetensors file to write")->required();
  command->add_flag("--layers", options->layers, "also the parts inside each layer");
  command->add_option("--prefill-chunk", options->chunk, "tokens per step (default: all at once)");
  add_experts_option(*command, options->experts);
  command->footer(
      "Example: moesaic forward --model DIR --input case.safetensors --output out.safetensors "
      "--layers --compute f32");
  command->callback([options, &status] {
    default_to_demo(options->model);
    if (const auto done = run(*options); !done) status = report(done.error());
  });
}

}  // namespace moesaic
