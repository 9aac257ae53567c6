#include "tests/support/published_checkpoint.hpp"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "common/kernels/packed_matrix.hpp"
#include "common/model/tensor_names.hpp"
#include "common/model/weight_encoder.hpp"
#include "common/model/weight_list.hpp"
#include "common/quantize/ccq_files.hpp"
#include "common/tensor/bf16.hpp"

namespace moesaic::test {
namespace {

using Tensors = std::map<std::string, Tensor>;

std::int64_t dim(std::size_t n) { return static_cast<std::int64_t>(n); }

Tensor bytes_tensor(const std::vector<std::uint8_t>& bytes, std::size_t rows, std::size_t n,
                    const PublishedSpec& spec) {
  Tensor t(spec.signed_bytes ? DType::kI8 : DType::kU8, {dim(rows), dim(n)});
  std::memcpy(t.bytes.data(), bytes.data(), rows * n);
  return t;
}

template <class T>
Tensor vector_tensor(DType dtype, const std::vector<T>& values, const PublishedSpec& spec) {
  std::vector<std::int64_t> shape{dim(values.size())};
  if (spec.leading_one) shape.insert(shape.begin(), 1);
  Tensor t(dtype, shape);
  std::memcpy(t.bytes.data(), values.data(), values.size() * sizeof(T));
  return t;
}

/// quantization.md 9.1, the scale rounded to bf16.
void add_wint(const std::string& base, const MatrixView& w, int bits, const PublishedSpec& spec,
              Tensors& out) {
  const float most_integer = bits == 8 ? 127 : 7;
  const std::size_t n = w.rows, k = w.cols;
  std::vector<std::uint8_t> bytes(bits == 8 ? k * n : k / 2 * n);
  std::vector<Bf16> scales;
  for (std::size_t c = 0; c < n; ++c) {
    float most = 0;
    for (std::size_t r = 0; r < k; ++r) most = std::max(most, std::fabs(element_f32(w, c, r)));
    scales.push_back(f32_to_bf16(most / most_integer));
    for (std::size_t r = 0; r < k && most > 0; ++r) {
      const float q = std::round(element_f32(w, c, r) / most * most_integer);
      const auto byte = static_cast<std::uint8_t>(static_cast<int>(q));
      if (bits == 8)
        bytes[r * n + c] = byte;
      else
        bytes[r / 2 * n + c] =
            static_cast<std::uint8_t>(bytes[r / 2 * n + c] | (byte & 15) << (r % 2 * 4));
    }
  }
  out.emplace(base + ".quant_weight", bytes_tensor(bytes, bytes.size() / n, n, spec));
  out.emplace(base + ".weight_scale", vector_tensor(DType::kBf16, scales, spec));
}

void add_wint2(const std::string& base, const MatrixView& w, const PublishedSpec& spec,
               Tensors& out) {
  auto encoded = encode_ccq2(w, {&spec.pair, 1}, nullptr);
  if (!encoded) throw std::runtime_error(encoded.error().what);
  auto& t = *encoded;
  if (!spec.padded_k) {
    const std::size_t k = (w.cols + 63) / 64 * 64;
    t.quant_weight.resize(k / 4 * t.n);
    t.weight_scale.resize((k + 127) / 128 * t.n);
    t.k = k;
  }
  for (std::size_t c = 0; c < t.n; c += 3) {
    t.code_scale[c] += spec.code_fraction;
    t.code_zp[c] += spec.code_fraction;
  }
  out.emplace(base + ".quant_weight", bytes_tensor(t.quant_weight, t.k / 4, t.n, spec));
  out.emplace(base + ".weight_scale", bytes_tensor(t.weight_scale, (t.k + 127) / 128, t.n, spec));
  if (spec.super_scales)
    out.emplace(base + ".super_scales", vector_tensor(DType::kBf16, t.super_scales, spec));
  out.emplace(base + ".code_scale", vector_tensor(DType::kF32, t.code_scale, spec));
  out.emplace(base + ".code_zp", vector_tensor(DType::kF32, t.code_zp, spec));
}

/// Puts one weight where the layout has it.
void place(const MatrixView& from, const StoredPart& part, Tensor& tensor) {
  for (std::size_t r = 0; r < from.rows; ++r)
    for (std::size_t c = 0; c < from.cols; ++c) {
      const auto at = part.offset + r * static_cast<std::size_t>(part.row_stride()) +
                      c * static_cast<std::size_t>(part.col_stride());
      const float value = element_f32(from, r, c);
      if (tensor.dtype == DType::kF32)
        tensor.as<float>()[at] = value;
      else
        tensor.as<Bf16>()[at] = f32_to_bf16(value);
    }
}

}  // namespace

Tensors published_tensors(const ModelConfig& config, const WeightSource& source,
                          const PublishedSpec& spec) {
  const TensorLayout layout{TensorFormat::kPaddle, "ernie.", "ernie.", "vision_model."};
  Tensors floats;
  std::map<std::string, WeightId> linears;
  for_each_weight(config, [&](const WeightId& id) {
    const auto part = locate(config, layout, id);
    const auto dtype = is_router(id.kind) ? DType::kF32 : DType::kBf16;
    auto& tensor = floats.try_emplace(part.name, dtype, part.shape).first->second;
    const auto weight = source.get(id);
    if (!weight) throw std::runtime_error(weight.error().what);
    place(weight->view, part, tensor);
    if (part.transposed && !is_router(id.kind) && component_of(id) != Component::kVision)
      linears.emplace(part.name, id);
  });
  Tensors out;
  for (auto& [name, tensor] : floats) {
    const auto at = linears.find(name);
    if (at == linears.end()) {
      out.emplace(name, std::move(tensor));
      continue;
    }
    const auto base = name.substr(0, name.size() - std::strlen(".weight"));
    const auto k = static_cast<std::size_t>(tensor.shape[0]);
    const auto n = static_cast<std::size_t>(tensor.shape[1]);
    const MatrixView w{tensor.bytes.data(), tensor.dtype, n, k, 1, dim(n)};
    if (!is_expert(at->second.kind))
      add_wint(base, w, 8, spec, out);
    else if (at->second.layer <= spec.last_w4_layer)
      add_wint(base, w, 4, spec, out);
    else
      add_wint2(base, w, spec, out);
  }
  return out;
}

std::string published_config(const std::string& config_json, const PublishedSpec& spec,
                             bool other_keys) {
  namespace json = boost::json;
  auto config = json::parse(config_json).as_object();
  json::object moe{{"moe_w4_quant_config",
                    {{"quant_type", "wint4"},
                     {"quant_granularity", "per_channel"},
                     {"quant_start_layer", 0},
                     {"quant_end_layer", spec.last_w4_layer}}},
                   {"moe_w2_quant_config",
                    {{"quant_type", "wint2"},
                     {"quant_granularity", "pp_acc"},
                     {"quant_group_size", 64},
                     {"quant_start_layer", spec.last_w4_layer + 1},
                     {"quant_end_layer", 53}}}};
  json::object quantization{{"quantization", "wint2"}};
  quantization[other_keys ? "dense_quant_config" : "dense_quant_type"] = "wint8";
  if (other_keys)
    moe["quant_type"] = "w4w2";
  else
    quantization["moe_quant_type"] = "w4w2";
  quantization["moe_quant_config"] = std::move(moe);
  config["is_quantized"] = true;
  config["quantization_config"] = std::move(quantization);
  return json::serialize(config);
}

}  // namespace moesaic::test
