#include "common/model/inspect.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <set>

#include "common/model/weight_list.hpp"

namespace moesaic {
namespace {

using enum WeightKind;

/// Components in the order they are printed.
enum Group : std::size_t {
  kEmbeddingGroup,
  kOutputGroup,
  kAttentionGroup,
  kNormGroup,
  kDenseGroup,
  kSharedGroup,
  kTextExpertGroup,
  kVisionExpertGroup,
  kRouterGroup,
  kBiasGroup,
  kVitGroup,
  kResamplerGroup,
  kGroups,
};

constexpr std::array<const char*, kGroups> kGroupNames = {
    "embedding", "output matrix",     "attention",    "norms",
    "dense FFN", "shared experts",    "text experts", "vision experts",
    "routers",   "correction biases", "vision tower", "resampler"};

Group group_of(const WeightId& id) {
  switch (id.kind) {
    case kEmbedding:
      return kEmbeddingGroup;
    case kLmHead:
      return kOutputGroup;
    case kQuery:
    case kKey:
    case kValue:
    case kAttnOut:
      return kAttentionGroup;
    case kFinalNorm:
    case kInputNorm:
    case kPostNorm:
      return kNormGroup;
    case kDenseGate:
    case kDenseUp:
    case kDenseDown:
      return kDenseGroup;
    case kSharedGate:
    case kSharedUp:
    case kSharedDown:
      return kSharedGroup;
    case kRouter:
      return kRouterGroup;
    case kRouterBias:
      return kBiasGroup;
    case kExpertGate:
    case kExpertUp:
    case kExpertDown:
      return id.modality == Modality::kText ? kTextExpertGroup : kVisionExpertGroup;
    default:
      return id.kind < kSpatialFc1 ? kVitGroup : kResamplerGroup;
  }
}

InspectService service_of(const InspectReport& report, std::string name, std::string holds,
                          std::initializer_list<Group> groups) {
  InspectService service{std::move(name), std::move(holds)};
  for (const auto group : groups) {
    service.parameters += report.groups[group].parameters;
    service.bytes += report.groups[group].bytes;
  }
  return service;
}

std::string two(const std::array<std::uint32_t, kModalities>& values) {
  return std::to_string(values[0]) + " text, " + std::to_string(values[1]) + " vision";
}

std::string gigabytes(std::uint64_t bytes) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.3f GB", static_cast<double>(bytes) * 1e-9);
  return text.data();
}

/// 29399294336 as 29,399,294,336.
std::string grouped(std::uint64_t number) {
  auto text = std::to_string(number);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3)
    text.insert(static_cast<std::size_t>(at), ",");
  return text;
}

std::vector<std::pair<std::string, std::string>> configuration_of(const ModelConfig& c,
                                                                  const Checkpoint* stored) {
  const auto moe = std::ranges::count(c.layer_is_moe, true);
  const auto& v = c.vision;
  std::vector<std::pair<std::string, std::string>> lines = {
      {"model type", c.model_type},
      {"vocabulary", grouped(c.vocab_size) + (c.tie_word_embeddings ? ", tied" : ", not tied")},
      {"hidden size", std::to_string(c.hidden)},
      {"layers", std::to_string(c.layers) + ", " + std::to_string(moe) + " of them mixtures"},
      {"attention heads", std::to_string(c.heads) + " x " + std::to_string(c.head_dim) + ", " +
                              std::to_string(c.kv_heads) + " key/value heads"},
      {"context", grouped(c.max_positions) + " positions"},
      {"dense width", std::to_string(c.intermediate)},
      {"shared width", std::to_string(c.shared_width)},
      {"experts", two(c.experts) + ", " + std::to_string(c.experts_per_token) + " per token"},
      {"expert width", two(c.expert_width)},
      {"vision tower", std::to_string(v.depth) + " blocks, hidden " + std::to_string(v.hidden) +
                           ", " + std::to_string(v.heads) + " heads, width " +
                           std::to_string(v.intermediate) + ", patches of " +
                           std::to_string(v.patch)},
  };
  if (stored != nullptr) {
    lines.emplace_back("tensor names", format_name(stored->layout().format));
    if (c.quantization) lines.emplace_back("stored linears", describe(*c.quantization));
    lines.emplace_back("files", std::to_string(stored->files().files.size()));
    if (stored->has_spare_lm_head())
      lines.emplace_back("lm_head.weight", "stored although tied; not used");
  }
  return lines;
}

}  // namespace

InspectReport inspect(const ModelConfig& config, const Checkpoint* stored) {
  InspectReport report;
  report.configuration = configuration_of(config, stored);
  for (const auto* name : kGroupNames) report.groups.push_back({name});
  const auto layout = stored != nullptr ? stored->layout() : TensorLayout::original();
  std::set<std::string> names;
  for_each_weight(config, [&](const WeightId& id) {
    auto& group = report.groups[group_of(id)];
    auto part = locate(config, layout, id);
    const auto shape = weight_shape(config, id);
    const auto elements = shape.elements();
    if (const auto* linear = stored != nullptr ? stored->stored_linear(id) : nullptr) {
      group.parameters += elements;
      group.bytes += linear->bytes() * shape.rows / linear->columns();
      for (auto& name : linear->names())
        if (names.insert(std::move(name)).second) ++group.tensors;
      return;
    }
    const auto dtype = stored != nullptr    ? stored->files().tensors.at(part.name).tensor->dtype
                       : is_router(id.kind) ? DType::kF32
                                            : DType::kBf16;
    group.parameters += elements;
    group.bytes += elements * dtype_bytes(dtype);
    if (names.insert(std::move(part.name)).second) ++group.tensors;
  });
  report.total.name = "total";
  for (const auto& group : report.groups) {
    report.total.tensors += group.tensors;
    report.total.parameters += group.parameters;
    report.total.bytes += group.bytes;
  }

  const auto parameters = [&](Group group) { return report.groups[group].parameters; };
  const auto used_experts = [&](Group group, Modality modality) {
    return parameters(group) / config.experts[static_cast<std::size_t>(modality)] *
           config.experts_per_token;
  };
  const auto common = parameters(kAttentionGroup) + parameters(kNormGroup) +
                      parameters(kDenseGroup) + parameters(kSharedGroup) +
                      parameters(kRouterGroup) / kModalities;
  report.active_text = common + used_experts(kTextExpertGroup, Modality::kText);
  report.active_vision = common + used_experts(kVisionExpertGroup, Modality::kVision);
  report.output_matrix = weight_shape(config, {kLmHead}).elements();
  report.kv_bytes_per_token =
      2 * std::uint64_t{config.layers} * config.kv_heads * config.head_dim * 2;

  report.services = {
      service_of(
          report, "decoder", "embedding, attention, norms, dense and shared FFN, output",
          {kEmbeddingGroup, kOutputGroup, kAttentionGroup, kNormGroup, kDenseGroup, kSharedGroup}),
      service_of(report, "router", "gates and their biases, f32", {kRouterGroup, kBiasGroup}),
      service_of(report, "expert-shard", "all experts, or the part its placement names",
                 {kTextExpertGroup, kVisionExpertGroup}),
      service_of(report, "vision-encoder", "vision tower, resampler", {kVitGroup, kResamplerGroup}),
      {"gateway", "no weights"},
      {"all-in-one", "everything", report.total.parameters, report.total.bytes},
  };
  return report;
}

std::string to_text(const InspectReport& report) {
  std::string text = "configuration\n";
  const auto cell = [](std::string value, std::size_t width, bool right) {
    if (value.size() < width) value.insert(right ? 0 : value.size(), width - value.size(), ' ');
    return value;
  };
  for (const auto& [what, value] : report.configuration)
    text += "  " + cell(what, 18, false) + value + "\n";

  const auto row = [&](const InspectGroup& g) {
    return "  " + cell(g.name, 18, false) + cell(grouped(g.tensors), 8, true) +
           cell(grouped(g.parameters), 17, true) + cell(grouped(g.bytes), 17, true) +
           cell(gigabytes(g.bytes), 12, true) + "\n";
  };
  text += "\n  " + cell("component", 18, false) + cell("tensors", 8, true) +
          cell("parameters", 17, true) + cell("bytes", 17, true) + "\n";
  for (const auto& group : report.groups) {
    if (group.tensors > 0) text += row(group);
  }
  text += row(report.total);

  const auto line = [&](const char* what, std::uint64_t value, const char* unit) {
    text += "  " + cell(what, 42, false) + cell(grouped(value), 17, true) + unit + "\n";
  };
  text += "\nactive per token\n";
  line("text", report.active_text, " parameters");
  line("text, with the output matrix", report.active_text + report.output_matrix, " parameters");
  line("vision", report.active_vision, " parameters");
  line("vision, with the output matrix", report.active_vision + report.output_matrix,
       " parameters");
  line("key/value cache, bf16", report.kv_bytes_per_token, " bytes");

  text += "\neach service would hold\n";
  for (const auto& s : report.services)
    text += "  " + cell(s.name, 18, false) + cell(grouped(s.parameters), 17, true) + " parameters" +
            cell(gigabytes(s.bytes), 12, true) + "  " + s.holds + "\n";
  return text;
}

}  // namespace moesaic
