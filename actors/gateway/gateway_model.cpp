#include "actors/gateway/gateway_model.hpp"

#include <algorithm>

#include "common/config/keys.hpp"

namespace moesaic {

Result<GatewayModel> load_gateway_model(const Settings& settings, const std::string& directory,
                                        const std::filesystem::path& font) {
  GatewayModel gateway;
  gateway.name = model_name(settings, directory);
  MOESAIC_TRY(gateway.tokenizer, Tokenizer::load(directory));
  if (settings.text("chat.format") == "auto") {
    gateway.style = guess_chat_style(directory);
  } else {
    MOESAIC_TRY(gateway.style, parse_chat_style(settings.text("chat.format")));
  }
  MOESAIC_TRY(gateway.config, load_model_config(directory));
  MOESAIC_TRY(gateway.preprocess, PreprocessConfig::load(directory, font));
  MOESAIC_TRY(gateway.defaults, load_generation_defaults(directory));
  const auto context = static_cast<std::uint32_t>(settings.integer("engine.max_context"));
  gateway.max_context =
      context > 0 ? std::min(context, gateway.config.max_positions) : gateway.config.max_positions;
  gateway.image_limits.max_bytes = static_cast<std::size_t>(settings.integer("limits.image_bytes"));
  gateway.image_limits.max_pixels = settings.integer("limits.image_pixels");
  gateway.limits.max_images = static_cast<std::size_t>(settings.integer("limits.images"));
  gateway.limits.max_frames = static_cast<std::size_t>(settings.integer("limits.video_frames"));
  gateway.limits.max_image_bytes = gateway.image_limits.max_bytes;
  return gateway;
}

}  // namespace moesaic
