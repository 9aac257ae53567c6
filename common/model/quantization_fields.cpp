#include "common/model/quantization_fields.hpp"

namespace moesaic {
namespace {

constexpr std::int64_t kLastEarlyLayer = 6;
constexpr std::int64_t kMostLayers = 1 << 20;

StoredFormat format_of(ConfigFields& f, const char* key, const std::string& type) {
  if (type == "wint8") return StoredFormat::kWint8;
  if (type == "wint4") return StoredFormat::kWint4;
  if (type == "wint2") return StoredFormat::kWint2;
  f.fail_at(key, '"' + type.substr(0, 40) + '"', "wint8, wint4 or wint2", Errc::kUnsupported);
  return StoredFormat::kFloat;
}

/// One value that may stand in two places.
std::string either(ConfigFields& f, const char* key, const std::string& value,
                   const std::string& other, const std::string& fallback) {
  if (!value.empty() && !other.empty() && value != other)
    f.fail_at(key, '"' + value.substr(0, 40) + '"', "\"" + other.substr(0, 40) + "\", as elsewhere",
              Errc::kInvalidArgument);
  return !value.empty() ? value : !other.empty() ? other : fallback;
}

/// Fields of a part of the MoE configuration that this engine has built one way only.
void only_type(const boost::json::object* object, const std::string& where,
               std::optional<Error>& error, const char* type, const char* granularity) {
  if (object == nullptr) return;
  ConfigFields f(*object, where, error);
  f.only("quant_type", type);
  f.only("quant_granularity", granularity);
  if (f.integer("quant_group_size", 0, kMostLayers, 0) != 0) f.only("quant_group_size", 64.0);
}

}  // namespace

StoredQuantization read_quantization(const boost::json::object& object, const std::string& where,
                                     std::optional<Error>& error) {
  ConfigFields f(object, where, error);
  const auto kind = f.text("quantization");
  if (kind != "wint2" && kind != "wint4" && kind != "wint8" && kind != "mix_quant")
    f.fail_at("quantization", kind.empty() ? "nothing" : '"' + kind.substr(0, 40) + '"',
              "wint2, wint4, wint8 or mix_quant", Errc::kUnsupported);
  const bool mixed = kind == "mix_quant";
  StoredQuantization stored;
  const auto dense = either(f, "dense_quant_type", f.text("dense_quant_type"),
                            f.text("dense_quant_config"), mixed ? "" : "wint8");
  stored.dense = format_of(f, "dense_quant_type", dense);
  if (stored.dense == StoredFormat::kWint2)
    f.fail_at("dense_quant_type", "\"wint2\"", "wint8 or wint4", Errc::kUnsupported);

  const auto* moe = f.object("moe_quant_config");
  const std::string inside = where + "moe_quant_config.";
  static const boost::json::object kNone;
  ConfigFields m(moe != nullptr ? *moe : kNone, inside, error);
  const auto type = either(f, "moe_quant_type", f.text("moe_quant_type"), m.text("quant_type"),
                           kind == "wint2" ? "w4w2"
                           : mixed         ? ""
                                           : kind);
  const auto* w4 = m.object("moe_w4_quant_config");
  const auto* w2 = m.object("moe_w2_quant_config");
  only_type(w4, inside + "moe_w4_quant_config.", error, "wint4", "per_channel");
  only_type(w2, inside + "moe_w2_quant_config.", error, "wint2", "pp_acc");
  if (type != "w4w2") {
    stored.experts = format_of(f, "moe_quant_type", type);
    return stored;
  }
  stored.early_experts = StoredFormat::kWint4;
  stored.experts = StoredFormat::kWint2;
  stored.last_early_layer = kLastEarlyLayer;
  if (w4 != nullptr)
    stored.last_early_layer = ConfigFields(*w4, inside + "moe_w4_quant_config.", error)
                                  .integer("quant_end_layer", -1, kMostLayers, kLastEarlyLayer);
  return stored;
}

std::string describe(const StoredQuantization& stored) {
  std::string text = std::string(format_name(stored.dense)) + ", experts ";
  if (stored.last_early_layer >= 0)
    text += std::string(format_name(stored.early_experts)) + " up to layer " +
            std::to_string(stored.last_early_layer) + ", then ";
  return text + std::string(format_name(stored.experts));
}

}  // namespace moesaic
