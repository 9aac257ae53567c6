#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/api/generation_defaults.hpp"
#include "common/api/generation_options.hpp"
#include "common/chat/chat_format.hpp"
#include "common/config/settings.hpp"
#include "common/media/image/image.hpp"
#include "common/media/preprocess.hpp"
#include "common/model/config.hpp"
#include "common/tokenizer/tokenizer.hpp"

namespace moesaic {

/// What the gateway knows of the model it serves: enough to prepare a request without a weight.
struct GatewayModel {
  std::string name;  ///< as clients call it
  std::shared_ptr<const Tokenizer> tokenizer;
  ChatStyle style = ChatStyle::kErnieVl;
  ModelConfig config;
  PreprocessConfig preprocess;
  GenerationDefaults defaults;
  std::uint32_t max_context = 0;  ///< prompt and answer, tokens
  bool vision = true;             ///< pictures and videos are served
  ImageLimits image_limits;       ///< of each file
  /// Counts; `vocab_size` and `placeholder_ids` are set by the service.
  RequestLimits limits;
};

/// From the settings (sections model, chat, engine, limits) and the checkpoint directory: its
/// configuration, tokenizer, preprocessing and defaults; no weight.
/// @param font  for time stamps on video frames where the checkpoint has none
/// @errors kNotFound, kCorrupt, kInvalidArgument: the text names the file or the key
[[nodiscard]] Result<GatewayModel> load_gateway_model(const Settings& settings,
                                                      const std::string& directory,
                                                      const std::filesystem::path& font);

}  // namespace moesaic
