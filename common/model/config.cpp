#include "common/model/config.hpp"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <cmath>
#include <fstream>

#include "common/model/config_fields.hpp"
#include "common/model/quantization_fields.hpp"

namespace moesaic {
namespace {

namespace json = boost::json;

constexpr std::size_t kMaxConfigBytes = 1u << 20;
constexpr std::size_t kMaxConfigDepth = 16;

constexpr std::uint32_t kMaxVocab = 1u << 22;
constexpr std::uint32_t kMaxHidden = 1u << 16;
constexpr std::uint32_t kMaxWidth = 1u << 20;
constexpr std::uint32_t kMaxLayers = 256;
constexpr std::uint32_t kMaxHeads = 1024;
constexpr std::uint32_t kMaxHeadDim = 1024;
constexpr std::uint32_t kMaxPositions = 1u << 24;
constexpr std::uint32_t kMaxExperts = 64;  // the chosen experts of a row are a 64-bit mask

constexpr double kNormMin = 1e-12;  // what the router kernel divides by at least

constexpr const char* kFlatType = "ernie4_5_moe_vl";
constexpr const char* kNestedType = "ernie4_5_vl_moe";

/// The delimiters of the published vocabulary, which a flat config.json may leave out.
constexpr std::uint32_t kPublishedVocab = 103424;
constexpr std::int32_t kPublishedImageStart = 101304;

/// Keys common to both layouts.
void read_decoder(ConfigFields& f, ModelConfig& c) {
  c.vocab_size = f.count("vocab_size", 3, kMaxVocab);
  c.hidden = f.count("hidden_size", 1, kMaxHidden);
  c.intermediate = f.count("intermediate_size", 1, kMaxWidth);
  c.layers = f.count("num_hidden_layers", 1, kMaxLayers);
  c.heads = f.count("num_attention_heads", 1, kMaxHeads);
  c.kv_heads = f.count("num_key_value_heads", 1, kMaxHeads);
  if (c.heads % c.kv_heads != 0)
    f.fail_at("num_key_value_heads", std::to_string(c.kv_heads),
              "a divisor of the " + std::to_string(c.heads) + " attention heads",
              Errc::kInvalidArgument);
  if (!f.has("head_dim") && c.hidden % c.heads != 0)
    f.fail_at("num_attention_heads", std::to_string(c.heads),
              "a divisor of hidden_size " + std::to_string(c.hidden), Errc::kInvalidArgument);
  c.head_dim = f.count("head_dim", 1, kMaxHeadDim, c.hidden / c.heads);
  if (c.head_dim % 2 != 0 || c.head_dim > kMaxHeadDim)
    f.fail_at("head_dim", std::to_string(c.head_dim),
              "an even number, at most " + std::to_string(kMaxHeadDim), Errc::kInvalidArgument);
  c.max_positions = f.count("max_position_embeddings", 1, kMaxPositions);
  c.rms_norm_eps = static_cast<float>(f.number("rms_norm_eps", 1e-12, 1e-1));

  const auto experts = f.pair("moe_num_experts", 1, kMaxExperts);
  const auto widths = f.pair("moe_intermediate_size", 1, kMaxWidth);
  if (experts[0] != experts[1])
    f.fail_at("moe_num_experts", std::to_string(experts[0]) + " and " + std::to_string(experts[1]),
              "equal numbers", Errc::kUnsupported);
  for (std::size_t m = 0; m < kModalities; ++m) {
    c.experts[m] = static_cast<std::uint32_t>(experts[m]);
    c.expert_width[m] = static_cast<std::uint32_t>(widths[m]);
  }
  c.experts_per_token = f.count("moe_k", 1, c.experts[0]);
  const auto shared = f.count("moe_num_shared_experts", 0, kMaxExperts, 0);
  if (std::uint64_t{shared} * c.expert_width[0] > kMaxWidth)
    f.fail_at("moe_num_shared_experts", std::to_string(shared),
              "at most " + std::to_string(kMaxWidth) + " columns in all", Errc::kInvalidArgument);
  c.shared_width = static_cast<std::uint32_t>(std::uint64_t{shared} * c.expert_width[0]);

  const auto norm_min = f.number("moe_norm_min", 0.0, 1.0, kNormMin);
  if (std::abs(norm_min - kNormMin) > 1e-3 * kNormMin)
    f.fail_at("moe_norm_min", std::to_string(norm_min), "1e-12", Errc::kUnsupported);
  f.only("hidden_act", "silu");
  f.only("use_bias", false);
  f.only("use_rmsnorm", true);
  f.only("rope_3d", true);
  f.only("compression_ratio", 1.0);
  f.only("moe_gate_act", "softmax");
  f.only("moe_use_aux_free", true);
  f.only("moe_norm_gate_logits", true);
  f.only("moe_use_hard_gate", true);
  f.only("moe_group_experts", false);
  f.only("moe_fuse_experts", false);
  f.only("moe_use_token_type_bias", false);
  f.only("mm_vocab_size", 0.0);
  f.only("num_nextn_predict_layers", 0.0);
}

/// Time frequencies must leave an even number for height and width, which alternate.
void check_time_freqs(ConfigFields& f, std::string_view key, const ModelConfig& c) {
  if (c.time_freqs <= c.head_dim / 2 && (c.head_dim / 2 - c.time_freqs) % 2 == 0) return;
  f.fail_at(
      key, std::to_string(c.time_freqs),
      "at most head_dim / 2 = " + std::to_string(c.head_dim / 2) + ", an even number below it",
      Errc::kInvalidArgument);
}

constexpr double kMinTheta = 1.0;
constexpr double kMaxTheta = 1e12;

void read_flat_rope(ConfigFields& f, ModelConfig& c) {
  c.rope_theta = f.number("rope_theta", kMinTheta, kMaxTheta, c.rope_theta);
  c.time_freqs = f.count("freq_allocation", 0, kMaxHeadDim);
  check_time_freqs(f, "freq_allocation", c);
}

void read_nested_rope(ConfigFields& f, const std::string& where, std::optional<Error>& error,
                      ModelConfig& c) {
  const auto* object = f.object("rope_parameters");
  if (object == nullptr) return read_flat_rope(f, c);
  ConfigFields rope(*object, where + "rope_parameters.", error);
  rope.only("rope_type", "default");
  c.rope_theta = rope.number("rope_theta", kMinTheta, kMaxTheta);
  const auto section = rope.integers("mrope_section", 3, 0, kMaxHeadDim);
  c.time_freqs = static_cast<std::uint32_t>(section[2]);
  if (section[0] != section[1] || 2 * (section[0] + section[1] + section[2]) != c.head_dim)
    rope.fail_at("mrope_section",
                 std::to_string(section[0]) + ", " + std::to_string(section[1]) + ", " +
                     std::to_string(section[2]),
                 "two equal numbers and a third, head_dim / 2 = " + std::to_string(c.head_dim / 2) +
                     " in sum",
                 Errc::kInvalidArgument);
}

/// Which layers are mixtures, by start, end and interval, as the published converter decides.
void read_moe_range(ConfigFields& f, ModelConfig& c) {
  const auto last = static_cast<std::int64_t>(c.layers) - 1;
  const auto start = f.pair("moe_layer_start_index", 0, kMaxLayers);
  auto end = f.pair("moe_layer_end_index", -1, 1 << 20, last);
  for (auto& e : end) e = e < 0 ? last : std::min(e, last);
  const auto interval = f.count("moe_layer_interval", 1, kMaxLayers, 1);
  if (start[0] != start[1])
    f.fail_at("moe_layer_start_index",
              std::to_string(start[0]) + " and " + std::to_string(start[1]), "equal numbers",
              Errc::kUnsupported);
  if (end[0] != end[1])
    f.fail_at("moe_layer_end_index", std::to_string(end[0]) + " and " + std::to_string(end[1]),
              "one last layer for both modalities", Errc::kUnsupported);
  c.layer_is_moe.resize(c.layers);
  for (std::int64_t i = 0; i <= last; ++i)
    c.layer_is_moe[static_cast<std::size_t>(i)] =
        (i + 1) % interval == 0 && i >= start[0] && i <= end[0];
}

void read_layer_types(ConfigFields& f, ModelConfig& c) {
  if (!f.has("mlp_layer_types")) return read_moe_range(f, c);
  const auto types = f.strings("mlp_layer_types", c.layers);
  for (const auto& type : types) {
    if (type != "dense" && type != "sparse")
      f.fail_at("mlp_layer_types", '"' + type.substr(0, 40) + '"', "dense or sparse",
                Errc::kUnsupported);
    c.layer_is_moe.push_back(type == "sparse");
  }
}

/// A required token id, or one that may be absent.
std::int32_t read_id(ConfigFields& f, std::string_view key, const ModelConfig& c,
                     std::optional<std::int64_t> fallback = std::nullopt) {
  return static_cast<std::int32_t>(
      f.integer(key, 0, static_cast<std::int64_t>(c.vocab_size) - 1, fallback));
}

void read_stop_ids(ConfigFields& f, ModelConfig& c) {
  c.bos_id = read_id(f, "bos_token_id", c, c.bos_id);
  c.eos_id = read_id(f, "eos_token_id", c, c.eos_id);
  c.pad_id = read_id(f, "pad_token_id", c, c.pad_id);
}

void read_delimiters(ConfigFields& f, ModelConfig& c) {
  const bool published =
      c.vocab_size == kPublishedVocab && c.image_placeholder_id < kPublishedImageStart;
  std::int32_t* const ids[] = {&c.image_start_id, &c.image_end_id, &c.video_start_id,
                               &c.video_end_id};
  const char* const keys[] = {"image_start_token_id", "image_end_token_id", "video_start_token_id",
                              "video_end_token_id"};
  for (int i = 0; i < 4; ++i)
    *ids[i] =
        read_id(f, keys[i], c,
                published ? std::optional<std::int64_t>(kPublishedImageStart + i) : std::nullopt);
}

/// Keys common to the vision towers of both layouts.
void read_vision(ConfigFields& f, VisionConfig& v) {
  v.depth = f.count("depth", 1, kMaxLayers);
  v.heads = f.count("num_heads", 1, kMaxHeads);
  if (v.hidden % v.heads != 0 || v.head_dim() % 4 != 0 || v.head_dim() > kMaxHeadDim)
    f.fail_at("num_heads", std::to_string(v.heads),
              "a divisor of hidden size " + std::to_string(v.hidden) +
                  " that leaves a multiple of 4, at most " + std::to_string(kMaxHeadDim) +
                  ", per head",
              Errc::kInvalidArgument);
  v.in_channels = f.count("in_channels", 1, 16, f.count("in_chans", 1, 16, 3));
  v.patch = f.count("patch_size", 1, 64, f.count("spatial_patch_size", 1, 64, 14));
  v.spatial_merge = f.count("spatial_merge_size", 1, 16, 2);
  f.only("in_channels", 3.0);
  f.only("in_chans", 3.0);
  f.only("spatial_merge_size", 2.0);
  f.only("hidden_act", "quick_gelu");
}

void read_flat_vision(const json::object& object, const std::string& where, ConfigFields& top,
                      std::optional<Error>& error, VisionConfig& v) {
  ConfigFields f(object, where, error);
  v.hidden = f.count("embed_dim", 1, kMaxHidden, f.count("hidden_size", 1, kMaxHidden, 0));
  f.only("hidden_size", static_cast<double>(v.hidden));
  if (v.hidden == 0)
    f.fail_at("embed_dim", "nothing", "an integer, 1 to " + std::to_string(kMaxHidden),
              Errc::kInvalidArgument);
  read_vision(f, v);
  const auto width = v.hidden * f.number("mlp_ratio", 1.0 / kMaxHidden, 64, 4.0);
  v.intermediate = static_cast<std::uint32_t>(width);
  if (width < 1 || width > kMaxWidth || width != std::floor(width))
    f.fail_at("mlp_ratio", std::to_string(width / v.hidden),
              "a whole number of columns, at most " + std::to_string(kMaxWidth),
              Errc::kInvalidArgument);
  top.only("pixel_hidden_size", static_cast<double>(v.hidden));
  top.only("spatial_conv_size", static_cast<double>(v.spatial_merge));
  top.only("temporal_conv_size", 2.0);
  top.only("use_temporal_conv", true);
}

void read_nested_vision(const json::object& object, const std::string& where,
                        std::optional<Error>& error, VisionConfig& v) {
  ConfigFields f(object, where, error);
  v.hidden = f.count("hidden_size", 1, kMaxHidden);
  read_vision(f, v);
  v.intermediate = f.count("intermediate_size", 1, kMaxWidth);
  v.layer_norm_eps = static_cast<float>(f.number("rms_norm_eps", 1e-12, 1e-1, 1e-6));
  f.only("temporal_merge_size", 2.0);
  if (const auto* rope = f.object("rope_parameters")) {
    ConfigFields r(*rope, where + "rope_parameters.", error);
    r.only("rope_type", "axial");
    v.rope_theta = r.number("rope_theta", kMinTheta, kMaxTheta, v.rope_theta);
  }
}

void read_flat(const json::object& root, const std::string& where, std::optional<Error>& error,
               ModelConfig& c) {
  ConfigFields f(root, where, error);
  read_decoder(f, c);
  read_flat_rope(f, c);
  read_moe_range(f, c);
  read_stop_ids(f, c);
  c.image_placeholder_id = read_id(f, "im_patch_id", c);
  read_delimiters(f, c);
  c.tie_word_embeddings = f.flag("tie_word_embeddings", true);
  const auto* vision = f.object("vision_config");
  if (vision == nullptr)
    return f.fail_at("vision_config", "nothing", "an object", Errc::kInvalidArgument);
  read_flat_vision(*vision, where + "vision_config.", f, error, c.vision);
  if (const auto* quantization = f.object("quantization_config"))
    c.quantization = read_quantization(*quantization, where + "quantization_config.", error);
}

void read_nested(const json::object& root, const std::string& where, std::optional<Error>& error,
                 ModelConfig& c) {
  ConfigFields top(root, where, error);
  const auto* text = top.object("text_config");
  const auto* vision = top.object("vision_config");
  if (text == nullptr || vision == nullptr)
    return top.fail_at(text == nullptr ? "text_config" : "vision_config", "nothing", "an object",
                       Errc::kInvalidArgument);
  const auto text_where = where + "text_config.";
  ConfigFields f(*text, text_where, error);
  read_decoder(f, c);
  read_nested_rope(f, text_where, error, c);
  read_layer_types(f, c);
  read_stop_ids(f, c);
  c.image_placeholder_id = read_id(top, "image_token_id", c);
  if (top.has("video_token_id")) c.video_placeholder_id = read_id(top, "video_token_id", c);
  read_delimiters(top, c);
  c.tie_word_embeddings = top.flag("tie_word_embeddings", f.flag("tie_word_embeddings", true));
  read_nested_vision(*vision, where + "vision_config.", error, c.vision);
}

Result<ModelConfig> parse(std::string_view text, std::string_view file) {
  const std::string where = std::string(file) + ": ";
  if (text.size() > kMaxConfigBytes)
    return fail(Errc::kTooLarge, where + std::to_string(text.size()) +
                                     " bytes found, expected at most " +
                                     std::to_string(kMaxConfigBytes));
  json::parse_options options;
  options.max_depth = kMaxConfigDepth;
  json::error_code code;
  const auto document = json::parse(text, code, {}, options);
  if (code) return fail(Errc::kCorrupt, where + code.message() + " found, expected a JSON object");
  const auto* root = document.if_object();
  if (root == nullptr)
    return fail(Errc::kCorrupt, where + "another JSON value found, expected an object");

  std::optional<Error> error;
  ModelConfig config;
  ConfigFields top(*root, where, error);
  config.model_type = top.text("model_type");
  if (config.model_type == kNestedType || top.has("text_config")) {
    top.only("model_type", kNestedType);
    if (!error) read_nested(*root, where, error, config);
  } else if (config.model_type == kFlatType) {
    read_flat(*root, where, error, config);
  } else {
    top.fail_at("model_type",
                config.model_type.empty() ? "nothing" : '"' + config.model_type.substr(0, 60) + '"',
                std::string(kFlatType) + " or " + std::string(kNestedType), Errc::kUnsupported);
  }
  if (error) return tl::make_unexpected(std::move(*error));
  return config;
}

}  // namespace

Modality ModelConfig::routing_modality(std::int32_t id) const {
  const bool delimiter = id >= 0 && (id == image_start_id || id == image_end_id ||
                                     id == video_start_id || id == video_end_id);
  return delimiter || is_placeholder(id) ? Modality::kVision : Modality::kText;
}

Result<ModelConfig> parse_model_config(std::string_view json, std::string_view file) try {
  return parse(json, file);
} catch (const std::exception& e) {  // bad_alloc, or what Boost.JSON throws
  return fail(Errc::kInternal, std::string(file) + ": " + e.what());
}

Result<ModelConfig> load_model_config(const std::filesystem::path& path) {
  std::error_code code;
  const auto file = std::filesystem::is_directory(path, code) ? path / "config.json" : path;
  if (!std::filesystem::is_regular_file(file, code))
    return fail(Errc::kNotFound, file.string() + ": no such file");
  std::ifstream in(file, std::ios::binary);
  std::string text(kMaxConfigBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad() || (in.fail() && !in.eof()))
    return fail(Errc::kIo, file.string() + ": cannot be read");
  text.resize(static_cast<std::size_t>(in.gcount()));
  return parse_model_config(text, file.string());
}

}  // namespace moesaic
