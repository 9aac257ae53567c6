#pragma once

#include "common/model/config_fields.hpp"
#include "common/model/stored_quantization.hpp"

namespace moesaic {

/// Reads `quantization_config` of config.json (part of config.cpp), in the spelling of published
/// files and in the one that FastDeploy reads:
///   quantization      wint2 (dense linears WINT8, experts w4w2), wint4 (WINT8, WINT4), wint8, or
///                     mix_quant (types below)
///   dense_quant_type  or dense_quant_config: wint8, wint4
///   moe_quant_type    or moe_quant_config.quant_type: wint8, wint4, wint2, or w4w2: WINT4 up to
///                     moe_quant_config.moe_w4_quant_config.quant_end_layer (6), WINT2 from there
/// @errors in `error`, as ConfigFields: another type is kUnsupported, two spellings that differ
///         kInvalidArgument
StoredQuantization read_quantization(const boost::json::object& object, const std::string& where,
                                     std::optional<Error>& error);

}  // namespace moesaic
