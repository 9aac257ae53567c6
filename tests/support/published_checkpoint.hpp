#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "common/model/weight_source.hpp"
#include "common/quantize/ccq.hpp"
#include "common/tensor/view.hpp"

namespace moesaic::test {

/// What Baidu leaves open or writes in two ways.
struct PublishedSpec {
  std::uint32_t last_w4_layer = 1;  ///< experts up to it WINT4, the others WINT2
  bool leading_one = false;         ///< vectors as [1, N]
  bool super_scales = true;         ///< false: left out, so ones
  bool signed_bytes = false;        ///< I8 for quant_weight and local scales
  bool padded_k = true;             ///< WINT2: K up to 128; false: to 64
  CodePair pair = {};
  float code_fraction = 0;  ///< added to code_scale and code_zp of every third column
};

/// A model's tensors as a published 2-bit checkpoint has them: names and [in, out] orientation of
/// Paddle, attention and dense and shared linears WINT8, experts WINT4 and WINT2, all else as
/// floats. Encoded by the formulas of quantization.md 9.1 and by `encode_ccq2`.
std::map<std::string, Tensor> published_tensors(const ModelConfig& config,
                                                const WeightSource& source,
                                                const PublishedSpec& spec);

/// config.json with the `quantization_config` of such a checkpoint.
/// @param other_keys as FastDeploy reads it, rather than as it is published
std::string published_config(const std::string& config_json, const PublishedSpec& spec,
                             bool other_keys = false);

}  // namespace moesaic::test
