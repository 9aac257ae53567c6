#include "services/all_in_one/eval/item_encoder.hpp"

#include <algorithm>

#include "common/base/read_file.hpp"
#include "common/chat/chat_format.hpp"

namespace moesaic {

Result<Sequence> known_sequence(const ModelConfig& config, EncodedItem item) {
  std::vector<VisualGrid> images, videos;
  for (const auto& visual : item.visuals) (visual->video ? videos : images).push_back(visual->grid);
  Sequence sequence;
  MOESAIC_TRY(sequence.layout, layout_prompt(config, item.prompt, images, videos));
  sequence.tokens = item.prompt;
  sequence.tokens.insert(sequence.tokens.end(), item.answer.begin(), item.answer.end());
  auto request = std::make_shared<GenerateRequest>();
  request->prompt = std::move(item.prompt);
  request->visuals = std::move(item.visuals);
  sequence.request = std::move(request);
  return sequence;
}

Result<ItemEncoder> ItemEncoder::load(const std::filesystem::path& model_dir,
                                      const ModelConfig& config, Compute compute,
                                      std::shared_ptr<const VisionWeights> vision,
                                      std::shared_ptr<ThreadPool> pool) {
  ItemEncoder encoder;
  encoder.config_ = config;
  encoder.pool_ = std::move(pool);
  encoder.style_ = guess_chat_style(model_dir);
  MOESAIC_TRY(encoder.tokenizer_, Tokenizer::load(model_dir));
  if (encoder.drawable_ids() > config.vocab_size)
    return fail(Errc::kShapeMismatch, model_dir.string() + ": the tokenizer has " +
                                          std::to_string(encoder.drawable_ids()) +
                                          " ids, the model " + std::to_string(config.vocab_size));
  MOESAIC_TRY(encoder.preprocess_, PreprocessConfig::load(model_dir, default_font()));
  if (vision) encoder.tower_ = std::make_unique<VisionTower>(config, std::move(vision), compute);
  return encoder;
}

std::size_t ItemEncoder::drawable_ids() const {
  return static_cast<std::size_t>(tokenizer_->size());
}

std::vector<std::int32_t> ItemEncoder::stop_ids() const {
  std::vector<std::int32_t> ids{config_.eos_id};
  if (const auto end = tokenizer_->special_id("<|end_of_sentence|>"); end && *end != config_.eos_id)
    ids.push_back(*end);
  return ids;
}

Result<EncodedItem> ItemEncoder::encode(const ChatItem& item, bool with_answer) {
  auto encoded = encode_here(item, with_answer);
  if (!encoded) return fail(item.where, encoded.error());
  return encoded;
}

Result<EncodedItem> ItemEncoder::encode_here(const ChatItem& item, bool with_answer) {
  const ChatOptions chat{item.thinking, true};
  MOESAIC_TRY(const auto rendered, render_chat(*tokenizer_, style_, item.messages, chat));
  EncodedItem encoded;
  encoded.thinking = starts_thinking(style_, chat);
  for (const auto& visual : item.visuals) {
    MOESAIC_TRY(encoded.visuals.emplace_back(), features(visual));
  }
  std::size_t next = 0;
  for (std::size_t i = 0; i < rendered.ids.size(); ++i) {
    const bool placeholder =
        next < rendered.placeholder_positions.size() && rendered.placeholder_positions[next] == i;
    encoded.prompt.insert(encoded.prompt.end(), placeholder ? encoded.visuals[next++]->rows : 1,
                          rendered.ids[i]);
  }
  if (with_answer) {
    MOESAIC_TRY(encoded.answer, answer_ids(item, encoded.thinking));
  }
  const auto tokens = encoded.prompt.size() + encoded.answer.size();
  if (tokens > config_.max_positions)
    return fail(Errc::kContextLength, std::to_string(tokens) + " tokens, the context holds " +
                                          std::to_string(config_.max_positions));
  return encoded;
}

Result<VisualFeaturesPtr> ItemEncoder::features(const ItemVisual& visual) {
  if (!tower_) return fail(Errc::kUnsupported, "a picture, and no vision tower is loaded");
  const ImageLimits limits;
  std::vector<RgbImage> frames;
  for (const auto& picture : visual.frames) {
    auto bytes = picture.bytes;
    if (!bytes) {
      MOESAIC_TRY(auto content, read_file(picture.file, limits.max_bytes));
      bytes = std::make_shared<const std::string>(std::move(content));
    }
    auto frame = decode_image(*bytes, limits);
    if (!frame)
      return fail(picture.file.empty() ? "data URL" : picture.file.string(), frame.error());
    frames.push_back(std::move(*frame));
  }
  MOESAIC_TRY(const auto prepared,
              visual.video ? preprocess_video(preprocess_, std::move(frames), visual.fps)
                           : preprocess_image(preprocess_, frames.front()));
  auto features = std::make_shared<VisualFeatures>();
  features->video = visual.video;
  features->grid = prepared.input.grid;
  features->rows = visual_rows(config_.vision, features->grid);
  features->hidden = config_.hidden;
  features->values = tower_->encode(prepared.input.patches, features->grid, *pool_);
  return features;
}

/// Text runs as the template writes them: "\n", chain, "\n", </think>, "\n\n", answer, end.
Result<std::vector<std::int32_t>> ItemEncoder::answer_ids(const ChatItem& item,
                                                          bool thinking) const {
  std::vector<std::int32_t> ids;
  std::string text = item.answer;
  if (thinking) {
    const auto end = tokenizer_->special_id("</think>");
    if (!end) return fail(Errc::kUnsupported, "the tokenizer has no token </think>");
    if (!item.reasoning)
      return fail(Errc::kInvalidArgument, "thinking is on, and \"reasoning\" is missing");
    MOESAIC_TRY(ids, tokenizer_->encode("\n" + *item.reasoning + "\n"));
    ids.push_back(*end);
    text = "\n\n" + text;
  }
  MOESAIC_TRY(const auto answer, tokenizer_->encode(text));
  ids.insert(ids.end(), answer.begin(), answer.end());
  ids.push_back(config_.eos_id);
  return ids;
}

}  // namespace moesaic
