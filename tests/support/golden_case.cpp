#include "tests/support/golden_case.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <regex>
#include <set>

#include "common/tensor/safetensors.hpp"

namespace moesaic::test {
namespace {

const std::set<std::string> kInputs = {"input_ids", "pixel_values", "image_grid_thw",
                                       "pixel_values_videos", "video_grid_thw"};

bool is_boundary(const std::string& name) {
  static const std::regex pattern(
      "mm_token_type_ids|moe_mm_token_type_ids|position_ids|rope_delta|inputs_embeds|final_norm|"
      "logits|layer\\.\\d+\\.out|"
      "router\\.\\d+\\.(logits|index|weight)|(image|video)\\.(vit|resampler)\\.out");
  return std::regex_match(name, pattern);
}

/// Rows of `got` that the case keeps: some cases store only part of the big tensors.
std::vector<std::size_t> kept_rows(const std::string& name, const Tensors& golden,
                                   std::size_t rows) {
  static const std::regex token_rows("layer\\..*|inputs_embeds|final_norm");
  static const std::regex first_rows(
      ".*resampler\\.(spatial|temporal)|.*vit\\.(patch_embed|block\\.\\d+)");
  std::vector<std::size_t> keep;
  const auto listed = name == "logits"                     ? golden.find("logits_rows")
                      : std::regex_match(name, token_rows) ? golden.find("rows")
                                                           : golden.end();
  if (listed != golden.end()) {
    for (const auto row : listed->second.as<std::int32_t>())
      keep.push_back(static_cast<std::size_t>(row));
  } else {
    const bool few = golden.count("rows") > 0 && std::regex_match(name, first_rows);
    for (std::size_t r = 0; r < (few ? std::min<std::size_t>(rows, 4) : rows); ++r)
      keep.push_back(r);
  }
  return keep;
}

/// First difference beyond the tolerance, or nothing.
std::string compare_values(const Tensor& want, const Tensor& got,
                           const std::vector<std::size_t>& rows, double atol) {
  const auto width = want.elements() / static_cast<std::size_t>(want.shape[0]);
  const auto a = want.as<float>();
  const auto b = got.as<float>();
  double worst = 0;
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::size_t c = 0; c < width; ++c) {
      const double x = a[i * width + c];
      const double error = std::abs(b[rows[i] * width + c] - x) - (atol + 1e-4 * std::abs(x));
      if (!(error <= 0)) worst = std::max(worst, std::isnan(error) ? INFINITY : error);
    }
  return worst > 0 ? "beyond the tolerance by " + std::to_string(worst) : "";
}

/// Root of sum (got - want)^2 over sum want^2 of one row.
double relative_rms(std::span<const float> want, std::span<const float> got) {
  double error = 0;
  double norm = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    error += std::pow(static_cast<double>(got[i]) - want[i], 2);
    norm += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::sqrt(error / norm);
}

/// Token row of the first expert choice that differs, over all layers; the number of tokens if
/// there is none. A difference where the golden margin is larger than `margin` is a problem.
std::size_t first_other_choice(const Tensors& golden, const Tensors& got, float margin,
                               std::vector<std::string>& problems) {
  auto first = static_cast<std::size_t>(golden.at("input_ids").shape[0]);
  const auto tokens = first;
  // Token by token: a choice depends on that row and the rows before it.
  for (std::size_t row = 0; row < tokens && row <= first; ++row)
    for (const auto& [name, want] : golden) {
      if (!name.ends_with(".index")) continue;
      const auto k = static_cast<std::size_t>(want.shape[1]);
      const auto a = want.as<std::int32_t>().subspan(row * k, k);
      const auto b = got.at(name).as<std::int32_t>().subspan(row * k, k);
      if (std::multiset<std::int32_t>(a.begin(), a.end()) ==
          std::multiset<std::int32_t>(b.begin(), b.end()))
        continue;
      if (row < first &&
          golden.at(name.substr(0, name.rfind('.')) + ".margin").as<float>()[row] > margin)
        problems.push_back(name + ": other experts in row " + std::to_string(row) +
                           " in spite of a clear margin");
      first = std::min(first, row);
    }
  return first;
}

std::string compare_experts(const Tensors& golden, const Tensors& got, const std::string& name) {
  const auto& want = golden.at(name);
  const auto margins = golden.at(name.substr(0, name.rfind('.')) + ".margin").as<float>();
  const auto k = static_cast<std::size_t>(want.shape[1]);
  for (std::size_t row = 0; row < margins.size(); ++row) {
    if (margins[row] <= 1e-5F) continue;
    const auto a = want.as<std::int32_t>().subspan(row * k, k);
    const auto b = got.at(name).as<std::int32_t>().subspan(row * k, k);
    if (std::multiset<std::int32_t>(a.begin(), a.end()) !=
        std::multiset<std::int32_t>(b.begin(), b.end()))
      return "other experts in row " + std::to_string(row);
  }
  return "";
}

}  // namespace

Tensors read_golden(const std::string& model, const std::string& name) {
  auto tensors = read_safetensors(std::string(MOESAIC_SOURCE_DIR) + "/tests/golden/" + model +
                                  "/cases/" + name + ".safetensors");
  return tensors ? std::move(*tensors) : Tensors{};
}

std::vector<std::string> golden_cases(const std::string& model) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(MOESAIC_SOURCE_DIR) +
                                                               "/tests/golden/" + model + "/cases"))
    if (entry.path().extension() == ".safetensors") names.push_back(entry.path().stem());
  std::sort(names.begin(), names.end());
  return names;
}

Tensors case_inputs(const Tensors& golden, std::int32_t placeholder) {
  Tensors inputs;
  for (const auto& [name, tensor] : golden) {
    if (kInputs.count(name) == 0) continue;
    Tensor copy(tensor.dtype, tensor.shape);
    std::memcpy(copy.bytes.data(), tensor.bytes.data(),
                tensor.elements() * dtype_bytes(tensor.dtype));
    if (name == "input_ids" && placeholder >= 0) {
      const auto types = golden.at("mm_token_type_ids").as<std::int32_t>();
      for (std::size_t i = 0; i < types.size(); ++i)
        if (types[i] == 2) copy.as<std::int32_t>()[i] = placeholder;
    }
    inputs.emplace(name, std::move(copy));
  }
  return inputs;
}

std::vector<std::string> differences(const Tensors& golden, const Tensors& got,
                                     std::size_t& compared) {
  std::vector<std::string> problems;
  compared = 0;
  for (const auto& [name, want] : golden) {
    if (kInputs.count(name) > 0 || name == "rows" || name == "logits_rows" ||
        name.starts_with("greedy.") || name.ends_with(".margin") || want.dtype == DType::kU8)
      continue;
    const auto it = got.find(name);
    if (it == got.end()) {
      if (is_boundary(name)) problems.push_back(name + " is missing");
      continue;
    }
    const auto& have = it->second;
    ++compared;
    const auto rows = kept_rows(name, golden, static_cast<std::size_t>(have.shape[0]));
    auto shape = have.shape;
    shape[0] = static_cast<std::int64_t>(rows.size());
    std::string problem;
    if (shape != want.shape || have.dtype != want.dtype) {
      problem = "another shape or type";
    } else if (name.ends_with(".index")) {
      problem = compare_experts(golden, got, name);
    } else if (want.dtype == DType::kI32) {
      if (std::memcmp(want.bytes.data(), have.bytes.data(), want.elements() * 4) != 0)
        problem = "differs";
    } else {
      problem = compare_values(want, have, rows, name == "logits" ? 2e-5 : 5e-5);
    }
    if (!problem.empty()) problems.push_back(name + ": " + problem);
  }
  return problems;
}

std::vector<std::string> noisy_differences(const Tensors& golden, const Tensors& got,
                                           const Noise& noise, std::size_t& compared_rows) {
  static const std::regex vision("(image|video)\\.(vit|resampler)\\.out");
  static const std::regex decoder("layer\\.\\d+\\.out|final_norm|logits");
  std::vector<std::string> problems;
  compared_rows = 0;
  const auto clean = first_other_choice(golden, got, noise.margin, problems);
  for (const auto& [name, want] : golden) {
    const bool of_vision = std::regex_match(name, vision);
    if (!of_vision && !std::regex_match(name, decoder)) continue;
    const auto& have = got.at(name);
    const auto width = want.elements() / static_cast<std::size_t>(want.shape[0]);
    const auto rows = kept_rows(name, golden, static_cast<std::size_t>(have.shape[0]));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (!of_vision && rows[i] >= clean) continue;
      const auto rms = relative_rms(want.as<float>().subspan(i * width, width),
                                    have.as<float>().subspan(rows[i] * width, width));
      ++compared_rows;
      if (!(rms <= (of_vision ? noise.vision : noise.decoder)))
        problems.push_back(name + ": row " + std::to_string(rows[i]) +
                           " off by a relative rms of " + std::to_string(rms));
    }
  }
  return problems;
}

}  // namespace moesaic::test
